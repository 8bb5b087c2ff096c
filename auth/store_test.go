package auth

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zalando/go-keyring"
)

// memoryRing is a keyring with the limits and moods of real ones.
type memoryRing struct {
	entries map[string]string
	limit   int
	err     error
	hang    chan struct{}
}

func (r *memoryRing) Get(service, user string) (string, error) {
	if r.hang != nil {
		<-r.hang
	}
	if r.err != nil {
		return "", r.err
	}
	v, ok := r.entries[service+user]
	if !ok {
		return "", keyring.ErrNotFound
	}
	return v, nil
}

func (r *memoryRing) Set(service, user, secret string) error {
	if r.err != nil {
		return r.err
	}
	if r.limit > 0 && len(secret) > r.limit {
		return keyring.ErrSetDataTooBig
	}
	r.entries[service+user] = secret
	return nil
}

func (r *memoryRing) Delete(service, user string) error {
	if r.err != nil {
		return r.err
	}
	if _, ok := r.entries[service+user]; !ok {
		return keyring.ErrNotFound
	}
	delete(r.entries, service+user)
	return nil
}

func newRing(dir string) (*keyringStore, *memoryRing) {
	ring := &memoryRing{entries: map[string]string{}}
	return &keyringStore{ring: ring, dir: dir, files: fileStore{dir}, log: slog.New(slog.DiscardHandler)}, ring
}

func TestStoresKeepWhatWasSaved(t *testing.T) {
	ring, _ := newRing(t.TempDir())
	for _, s := range []Store{OpenStore(filepath.Join(t.TempDir(), "deep", "er"), false, nil), ring} {
		key, err := NewKey()
		if err != nil {
			t.Fatal(err)
		}
		want := Credentials{Key: key, Tokens: Tokens{Token: "t", RefreshToken: "r", Expires: time.Unix(1900000000, 0).UTC(), Email: "a@b"}}
		if _, err := s.Load(t.Context(), "default"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: empty: %v", s.Where(), err)
		}
		if err := s.Save(t.Context(), "default", want); err != nil {
			t.Fatal(err)
		}
		if err := s.Save(t.Context(), "Default/../x", Credentials{}); err != nil {
			t.Fatal(err)
		}
		got, err := s.Load(t.Context(), "default")
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", s.Where(), got, err)
		}
		for range 2 {
			if err := s.Delete(t.Context(), "default"); err != nil {
				t.Error(err)
			}
		}
		if _, err := s.Load(t.Context(), "default"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: deleted: %v", s.Where(), err)
		}
	}
}

func TestCredentialFilesAreTheirOwnersOnly(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes say nothing on windows")
	}
	dir := filepath.Join(t.TempDir(), "iap")
	s := fileStore{dir}
	if err := s.Save(t.Context(), "default", Credentials{}); err != nil {
		t.Fatal(err)
	}
	path := s.path("default")
	for at, want := range map[string]os.FileMode{dir: 0o700, path: 0o600} {
		if info, err := os.Stat(at); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", at, info.Mode(), err)
		}
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o601, 0o666} {
		_ = os.Chmod(path, mode)
		if _, err := s.Load(t.Context(), "default"); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("mode %v was read: %v", mode, err)
		}
	}
	// Saving again makes it private again, and leaves nothing beside it.
	if err := s.Save(t.Context(), "default", Credentials{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context(), "default"); err != nil {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	_ = os.Chmod(dir, 0o777)
	if err := s.Save(t.Context(), "default", Credentials{}); err == nil {
		t.Error("saved where everybody can replace the file")
	}
	_ = os.Chmod(dir, 0o700)
	_ = os.Remove(path)
	_ = os.Mkdir(path, 0o700)
	if _, err := s.Load(t.Context(), "default"); err == nil {
		t.Error("a directory was read")
	}
}

func TestDamagedCredentialsAreNotQuoted(t *testing.T) {
	s := fileStore{t.TempDir()}
	for _, content := range []string{"", "{", `{"tokens":"secret-token"}`, `{"key":"AAAA"}`, strings.Repeat("x", maxSecretBytes+1)} {
		if err := writeSecret(s.path("default"), []byte(content)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(t.Context(), "default"); err == nil || strings.Contains(err.Error(), "secret-token") {
			t.Errorf("%.20q: %v", content, err)
		}
	}
}

func TestWhatAKeyringDoesNotTakeGoesToAFile(t *testing.T) {
	s, ring := newRing(t.TempDir())
	small, big := Credentials{Tokens: Tokens{Token: "small"}}, Credentials{Tokens: Tokens{Token: strings.Repeat("b", 3000)}}
	ring.limit = 2560
	for _, c := range []Credentials{small, big, small} {
		if err := s.Save(t.Context(), "default", c); err != nil {
			t.Fatal(err)
		}
		got, err := s.Load(t.Context(), "default")
		if err != nil || got.Tokens.Token != c.Tokens.Token {
			t.Errorf("%.10q, %v", got.Tokens.Token, err)
		}
		_, err = os.Stat(s.files.path("default"))
		if inFile, inRing := err == nil, len(ring.entries) == 1; inFile == inRing {
			t.Errorf("%.10q: in the file %v, in the keyring %v", c.Tokens.Token, inFile, inRing)
		}
	}
	ring.err = errors.New("locked")
	if _, err := s.Load(t.Context(), "default"); err == nil || errors.Is(err, ErrNotFound) {
		t.Error("a locked keyring counts as empty:", err)
	}
}

func TestKeyringsOfTwoDirectoriesAreApart(t *testing.T) {
	one, ring := newRing(t.TempDir())
	two := &keyringStore{ring: ring, dir: t.TempDir(), files: fileStore{t.TempDir()}, log: one.log}
	if err := one.Save(t.Context(), "default", Credentials{}); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Load(t.Context(), "default"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestKeyringThatHangsIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ring := newRing("dir")
		if err := s.probe(); err != nil {
			t.Error(err)
		}
		ring.hang = make(chan struct{})
		start := time.Now()
		if err := s.probe(); err == nil || time.Since(start) != keyringTimeout {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Load(ctx, "default"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		close(ring.hang)
	})
}

func TestNoSessionBusMeansFiles(t *testing.T) {
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		t.Skip("the keyring needs no bus here")
	}
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	dir := t.TempDir()
	if s := OpenStore(dir, true, nil); s.Where() != dir {
		t.Errorf("kept in %s", s.Where())
	}
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")
	if s := OpenStore(dir, true, nil); s.Where() != dir {
		t.Errorf("kept in %s", s.Where())
	}
}

func TestFileNamesStayInTheirDirectory(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"", "default", "Default", "DEFAULT", "..", ".", "a/b", `a\b`, "a:b", "a b", "ä", "%2f", "a%2fb", "\x00", "con.", "iap.example.com:443"} {
		got := fileName(name)
		if other, ok := seen[strings.ToLower(got)]; ok {
			t.Errorf("%q and %q share %q", name, other, got)
		}
		seen[strings.ToLower(got)] = name
		if strings.ContainsAny(got, `/\:`) || strings.HasPrefix(got, ".") {
			t.Errorf("%q became %q", name, got)
		}
	}
}
