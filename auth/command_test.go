package auth

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// script is a command for tokens that runs a shell's script.
func script(t *testing.T, text string) *Source {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the commands are those of unix")
	}
	file := filepath.Join(t.TempDir(), "token.sh")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return NewSource(SourceConfig{TokenCommand: "sh '" + file + "'"})
}

func TestTokenCommandRunsAtEachUseAndOneFailureIsNoMoreThanThat(t *testing.T) {
	count := filepath.Join(t.TempDir(), "count")
	s := script(t, fmt.Sprintf("echo x >>'%s'\nn=$(wc -l <'%s' | tr -d ' ')\ntest $n = 2 && exit 1\necho token-$n\n", count, count))
	for n, ask := range []func(context.Context) (string, error){s.Token, s.Refresh, s.Refresh, s.Token} {
		token, err := ask(t.Context())
		if n == 1 {
			wantLogin(t, err, CodeTokenUnavailable)
		} else if want := fmt.Sprintf("token-%d", n+1); err != nil || token != want {
			t.Errorf("use %d: %q, %v", n+1, token, err)
		}
	}
}

func TestWhatATokenCommandSaysLastIsShownAndNoSecretInIt(t *testing.T) {
	for said, want := range map[string]string{
		"echo starting >&2; echo 'no session: log in to the cloud first' >&2": "the token command failed: no session: log in to the cloud first",
		"echo 'refused eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln' >&2":        "the token command failed: refused [hidden]",
		"echo 'secret 0123456789abcdef0123456789abcdef0123456789abcdef' >&2":  "the token command failed: secret [hidden]",
		"printf 'a\\033[31mred\\r\\n\\n' >&2":                                 "the token command failed: a",
		"head -c 300000 /dev/zero | tr '\\0' '.' >&2; echo >&2; echo end >&2": "the token command failed: end",
		"true; echo eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln":                "the token command failed",
	} {
		_, err := script(t, said+"\nexit 7\n").Token(t.Context())
		failed := wantLogin(t, err, CodeTokenUnavailable)
		if !strings.HasPrefix(failed.Public, want) || strings.Contains(err.Error(), "eyJ") || len(failed.Public) > 2*maxDisplay {
			t.Errorf("%s: %q", said, err)
		}
	}
}

func TestTokenCommandIsBoundedInTimeAndOutput(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond) // instead of commandTimeout
	defer cancel()
	_, err := script(t, "sleep 5 & sleep 5").Token(ctx) // a child keeps the pipe open
	wantLogin(t, err, CodeTokenUnavailable)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v", err)
	}
	_, err = script(t, "head -c 1000000 /dev/zero | tr '\\0' x").Token(t.Context())
	wantLogin(t, err, CodeTokenUnavailable)
	_, err = script(t, "echo one two").Token(t.Context())
	wantLogin(t, err, CodeTokenUnavailable)
}
