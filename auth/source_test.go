package auth

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTokenFileIsReadAtEachUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	s := NewSource(SourceConfig{TokenFile: path})
	for _, content := range []string{"one", "two\n", " three \r\n"} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := s.Token(t.Context())
		again, _ := s.Refresh(t.Context())
		if err != nil || got != strings.TrimSpace(content) || again != got {
			t.Errorf("%q, %v", got, err)
		}
	}
	for _, content := range []string{"", "\n", "two tokens", "a\nb", "a\x00b", "\xffa", strings.Repeat("x", 100<<10)} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := s.Token(t.Context())
		wantLogin(t, err, CodeTokenUnavailable)
	}
	_ = os.Remove(path)
	_, err := s.Token(t.Context())
	wantLogin(t, err, CodeTokenUnavailable)
}

func TestTokenCommandRunsWithoutShell(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the commands are those of unix")
	}
	dir := t.TempDir()
	token := func(command string) (string, error) {
		return NewSource(SourceConfig{TokenCommand: command}).Token(t.Context())
	}
	if got, err := token("echo tok"); err != nil || got != "tok" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := token(`printf '%s' "$(touch` + filepath.Join(dir, "pwn") + `)"`); err != nil || !strings.HasPrefix(got, "$(touch") {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "pwn")); err == nil {
		t.Error("a shell ran")
	}
	for _, command := range []string{"false", "sh -c 'echo no >&2; exit 3'", "/nonexistent", "echo", "echo a b", "'open", "seq -s x 100000"} {
		if got, err := token(command); err == nil {
			t.Errorf("%s: %.20q", command, got)
		} else {
			wantLogin(t, err, CodeTokenUnavailable)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := NewSource(SourceConfig{TokenCommand: "yes"}).Token(ctx)
	wantLogin(t, err, CodeTokenUnavailable)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestSplitCommand(t *testing.T) {
	for line, want := range map[string][]string{
		"a b":             {"a", "b"},
		"  a\t b \n":      {"a", "b"},
		`a 'b c' "d e"`:   {"a", "b c", "d e"},
		`a b\ c \"d\"`:    {"a", "b c", `"d"`},
		`a 'b\c' "e\"f"`:  {"a", `b\c`, `e"f`},
		`a '' ""`:         {"a", "", ""},
		`a x'y'z`:         {"a", "xyz"},
		`a $HOME ; b | c`: {"a", "$HOME", ";", "b", "|", "c"},
		"":                nil,
		"''":              nil,
		`a "b`:            nil,
		`a \`:             nil,
	} {
		got, err := splitCommand(line)
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: %q, %v", line, got, err)
		}
	}
}

func TestSourceWithoutLoginAsksForOne(t *testing.T) {
	store := OpenStore(t.TempDir(), false, nil)
	s := NewSource(SourceConfig{Store: store, LockDir: t.TempDir(), Name: "default"})
	_, err := s.Token(t.Context())
	wantLogin(t, err, CodeLoginRequired)
	_, err = NewSource(SourceConfig{}).Token(t.Context())
	wantLogin(t, err, CodeLoginRequired)

	p := newProvider(t, "https://idp.test")
	p.stored(t, store, time.Now().Add(time.Hour))
	if got, err := s.Token(t.Context()); err != nil || got != "old" {
		t.Errorf("%q, %v", got, err)
	}
	late := NewSource(SourceConfig{Store: store, LockDir: t.TempDir(), Name: "default", Now: func() time.Time { return time.Now().Add(59*time.Minute + time.Second) }})
	_, err = late.Token(t.Context())
	wantLogin(t, err, CodeLoginRequired)
}

func TestLockWaitsForItsHolderOrTheContext(t *testing.T) {
	dir := t.TempDir()
	inside, leave := make(chan struct{}), make(chan struct{})
	ended := make(chan error)
	go func() {
		ended <- WithLock(t.Context(), dir, "default", func() error { close(inside); <-leave; return nil })
	}()
	<-inside
	ctx, cancel := context.WithTimeout(t.Context(), 2*lockPoll)
	defer cancel()
	if err := WithLock(ctx, dir, "default", func() error { t.Error("both hold the lock"); return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := WithLock(t.Context(), dir, "Default", func() error { return nil }); err != nil {
		t.Error("another name:", err)
	}
	close(leave)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	boom := errors.New("boom")
	if err := WithLock(t.Context(), dir, "default", func() error { return boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
}
