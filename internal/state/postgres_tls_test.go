package state_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"iap/internal/dev"
	"iap/internal/state"
	"iap/internal/state/pgtest"
)

// TestServerMustProveItsNameAndIsGivenThePasswordOfAFile asks a real server over TLS, by a name that its certificate has and by
// one that it has not, with a good password and a wrong one.
func TestServerMustProveItsNameAndIsGivenThePasswordOfAFile(t *testing.T) {
	dir := t.TempDir()
	files, err := dev.Certificates(dir, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	const password = "correct-horse"
	server := &pgtest.Server{Secure: &pgtest.Secure{Cert: files.Cert, Key: files.Key, Port: port}}
	defer server.Close()
	server.Exec(t, server.URL(t), "ALTER ROLE iap PASSWORD '"+password+"'")

	passfile := func(name, secret string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("*:*:*:*:"+secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, bad := passfile("good", password), passfile("bad", "battery-staple")
	for name, c := range map[string]struct{ host, passfile, want string }{
		"its name":         {"localhost", good, ""},
		"another name":     {"127.0.0.1", good, "certificate"},
		"another password": {"localhost", bad, "refuses the user"},
		"no authority":     {"localhost", good, "certificate"},
		"no TLS":           {"localhost", good, "pg_hba.conf"},
	} {
		t.Run(name, func(t *testing.T) {
			url := fmt.Sprintf("postgres://iap@%s:%d/test1?sslmode=verify-full&sslrootcert=%s&passfile=%s", c.host, port, files.CA, c.passfile)
			switch name {
			case "no authority":
				url = strings.Replace(url, "&sslrootcert="+files.CA, "", 1)
			case "no TLS":
				url = strings.Replace(url, "verify-full", "disable", 1)
			}
			s, err := state.Open(t.Context(), url)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Get(t.Context(), "k"); !errors.Is(err, state.ErrNotFound) {
					t.Error(err)
				}
				s.Close()
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), password) || strings.Contains(err.Error(), "battery") {
				t.Errorf("open: %v; want it to tell of %q", err, c.want)
			}
		})
	}
}
