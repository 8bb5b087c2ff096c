package state_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"iap/internal/state"
	"iap/internal/state/pgtest"
	"iap/internal/state/statetest"
)

// postgres is the server of all tests here, started by the first that needs it.
var postgres pgtest.Server

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := postgres.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}))
}

func openAt(t *testing.T, url string, now func() time.Time) state.Store {
	t.Helper()
	s, err := state.OpenWith(t.Context(), url, state.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSQLiteFileKeepsTheContract(t *testing.T) {
	statetest.Run(t, statetest.Backend{New: func(t *testing.T) func(func() time.Time) state.Store {
		url := "sqlite:" + filepath.Join(t.TempDir(), "state.db")
		return func(now func() time.Time) state.Store { return openAt(t, url, now) }
	}})
}

func TestSQLiteMemoryKeepsTheContract(t *testing.T) {
	statetest.Run(t, statetest.Backend{Volatile: true, New: func(t *testing.T) func(func() time.Time) state.Store {
		return func(now func() time.Time) state.Store { return openAt(t, "sqlite::memory:", now) }
	}})
}

func TestFileAndDirectoryAreTheOwnersOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "here")
	s := openAt(t, "sqlite:"+filepath.Join(dir, "state.db"), nil)
	defer s.Close()
	if _, err := s.Swap(t.Context(), "k", 0, nil, time.Time{}); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) < 2 {
		t.Fatal(entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory has mode %v, %v", info.Mode(), err)
	}
}

func TestPathMayHoldAnyCharacter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c#d%20é", "state&x=1.db")
	openAt(t, "sqlite:"+path, nil).Close()
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	url := "sqlite:" + filepath.Join(t.TempDir(), "state.db")
	defer openAt(t, url, nil).Close()
	if _, err := state.Open(t.Context(), url); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("second open: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := state.Open(ctx, url); !errors.Is(err, context.Canceled) {
		t.Errorf("open with an ended context: %v", err)
	}
}

// TestDamagedFileIsRefusedAndKept damages a healthy file in several ways; each must be named and left byte for byte.
func TestDamagedFileIsRefusedAndKept(t *testing.T) {
	healthy := sampleFile(t)
	zeroedMiddle := bytes.Clone(healthy)
	clear(zeroedMiddle[4096:])
	for name, content := range map[string][]byte{
		"empty":            {},
		"zeroed":           make([]byte, len(healthy)),
		"zeroed middle":    zeroedMiddle,
		"truncated":        healthy[:len(healthy)/2],
		"first page only":  healthy[:4096],
		"text":             []byte("not a database, whatever its name says\n"),
		"truncated header": healthy[:50],
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.db")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := state.Open(t.Context(), "sqlite:"+path)
			if !errors.Is(err, state.ErrDamaged) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "backup") {
				t.Errorf("open: %v", err)
			}
			if left, err := os.ReadFile(path); err != nil || !bytes.Equal(left, content) {
				t.Errorf("the file was changed: %d bytes of %d, %v", len(left), len(content), err)
			}
		})
	}
}

// sampleFile returns the bytes of a closed state file with a few pages.
func sampleFile(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	s := openAt(t, "sqlite:"+path, nil)
	for _, key := range []string{"a", "b", "c"} {
		if _, err := s.Swap(t.Context(), key, 0, bytes.Repeat([]byte(key), 20_000), time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	healthy, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return healthy
}

func TestLostFileIsNotReplacedOverItsLog(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "state.db-wal"), []byte("left over"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := state.Open(t.Context(), "sqlite:"+filepath.Join(dir, "state.db")); !errors.Is(err, state.ErrDamaged) {
		t.Errorf("open beside a left-over log: %v", err)
	}
}

func TestUnknownURLsAreRefusedWithoutTheirSecrets(t *testing.T) {
	for _, url := range []string{"postgres://u:secret@127.0.0.1:1/iap", "postgresql://u:secret@127.0.0.1:1/iap", "postgres://u:secret@h:port/iap", "mysql://u:secret@db", "", "sqlite:", "state.db"} {
		_, err := state.Open(t.Context(), url)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("open %q: %v", url, err)
		}
	}
}

// TestStateSurvivesACrash opens what a killed process leaves: the file and a write-ahead log not yet emptied into it.
func TestStateSurvivesACrash(t *testing.T) {
	running := t.TempDir()
	s := openAt(t, "sqlite:"+filepath.Join(running, "state.db"), nil)
	defer s.Close()
	version, err := s.Swap(t.Context(), "k", 0, []byte("value"), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	left := t.TempDir()
	if err := os.CopyFS(left, os.DirFS(running)); err != nil {
		t.Fatal(err)
	}
	if wal, err := os.Stat(filepath.Join(left, "state.db-wal")); err != nil || wal.Size() == 0 {
		t.Fatalf("no write-ahead log was left: %v", err)
	}
	again := openAt(t, "sqlite:"+filepath.Join(left, "state.db"), nil)
	defer again.Close()
	if item, err := again.Get(t.Context(), "k"); err != nil || item.Version != version {
		t.Errorf("after the crash: %+v, %v", item, err)
	}
}
