package dev

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"os"
	"runtime"
	"testing"
)

func pool(t *testing.T, file string) *x509.CertPool {
	t.Helper()
	pem, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate in " + file)
	}
	return roots
}

func TestCertificatesVerifyForTheirNamesOnly(t *testing.T) {
	t.Parallel()
	files, err := Certificates(t.TempDir(), "localhost", "127.0.0.1", "::1", "relay.test")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "relay.test"} {
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: pool(t, files.CA)}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if leaf.VerifyHostname("other.test") == nil {
		t.Error("verifies for a name it was not made for")
	}
	if runtime.GOOS != "windows" {
		info, err := os.Stat(files.Key)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("key mode = %v, %v", info.Mode(), err)
		}
	}
}

func TestCertificatesAreReusedUntilNamesChange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	read := func(names ...string) (cert, ca []byte) {
		files, err := Certificates(dir, names...)
		if err != nil {
			t.Fatal(err)
		}
		cert, _ = os.ReadFile(files.Cert)
		ca, _ = os.ReadFile(files.CA)
		return cert, ca
	}
	first, ca := read("localhost")
	if second, _ := read("localhost"); !bytes.Equal(first, second) {
		t.Error("a good certificate was replaced")
	}
	third, sameCA := read("localhost", "127.0.0.1")
	if bytes.Equal(first, third) || !bytes.Equal(ca, sameCA) {
		t.Error("a new name needs a new certificate of the same authority")
	}
}

func TestCertificatesRefusePublicNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"example.com", "192.0.2.1", "localhost.evil.com"} {
		if _, err := Certificates(t.TempDir(), name); err == nil {
			t.Errorf("made a certificate for %s", name)
		}
	}
}
