//go:build unix

package e2e

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"iap/internal/dev"
)

func TestHangupReadsTheCertificateAgainAndKeepsTheOldOneIfTheNewIsBroken(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	names := func() []string {
		t.Helper()
		conn, err := tls.Dial("tcp", s.listen, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test looks at the certificate itself
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].DNSNames
	}
	files, err := dev.Certificates(filepath.Join(s.dir, "tls"), "127.0.0.1", "renewed.test")
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(names(), "renewed.test") {
		t.Fatal("the certificate was read before anybody asked")
	}
	hangup := func(until string, n int) {
		t.Helper()
		if err := s.relay.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		s.relay.awaitText(0, until, n)
	}
	hangup("policy loaded", 1)
	if !slices.Contains(names(), "renewed.test") {
		t.Errorf("after the hang-up: %v", names())
	}
	if err := os.WriteFile(files.Cert, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	hangup("certificate not reloaded", 1)
	if !slices.Contains(names(), "renewed.test") {
		t.Errorf("a broken file took the place of a good certificate: %v", names())
	}
}
