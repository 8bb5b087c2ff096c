package dev

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	caLifetime     = 2 * 365 * 24 * time.Hour
	serverLifetime = 90 * 24 * time.Hour
	// A certificate with less left is replaced at the next start, so that a demo left running over a weekend survives.
	renewBefore = 7 * 24 * time.Hour
	// Clocks of containers and their host differ.
	backdate = time.Hour
)

// CertFiles are the paths of a development certificate: CA is what a client must trust, Cert and Key are the server's.
type CertFiles struct{ CA, Cert, Key string }

// Certificates makes a development authority and a server certificate for names in dir, or finds those of an earlier call that
// are good for another week. Names are loopback addresses, localhost, or under .localhost or .test; none means localhost, 127.0.0.1 and ::1. The
// authority is constrained to such names: whoever trusts it does not trust it for the rest of the world. Keys are 0600.
func Certificates(dir string, names ...string) (CertFiles, error) {
	if len(names) == 0 {
		names = []string{"localhost", "127.0.0.1", "::1"}
	}
	for _, name := range names {
		if !developmentName(name) {
			return CertFiles{}, fmt.Errorf("development certificate for %q: only loopback, localhost and .test names", name)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return CertFiles{}, fmt.Errorf("make certificate directory: %w", err)
	}
	files := CertFiles{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "server.pem"), Key: filepath.Join(dir, "server-key.pem")}
	caKey := filepath.Join(dir, "ca-key.pem")

	ca, err := loadPair(files.CA, caKey)
	if err != nil || time.Until(ca.Leaf.NotAfter) < serverLifetime+renewBefore {
		if ca, err = newAuthority(files.CA, caKey); err != nil {
			return CertFiles{}, err
		}
	}
	if server, err := loadPair(files.Cert, files.Key); err == nil && stillGood(server.Leaf, ca.Leaf, names) {
		return files, nil
	}
	return files, newServer(ca, files, names)
}

// developmentName tells whether nobody but this machine can answer to a name (RFC 6761).
func developmentName(name string) bool {
	if ip := net.ParseIP(name); ip != nil {
		return ip.IsLoopback()
	}
	name = strings.ToLower(name)
	return name == "localhost" || strings.HasSuffix(name, ".localhost") || strings.HasSuffix(name, ".test")
}

func stillGood(leaf, ca *x509.Certificate, names []string) bool {
	unnamed := func(name string) bool { return leaf.VerifyHostname(name) != nil }
	return leaf.CheckSignatureFrom(ca) == nil && time.Until(leaf.NotAfter) > renewBefore && !slices.ContainsFunc(names, unnamed)
}

func newAuthority(certFile, keyFile string) (tls.Certificate, error) {
	_, v4, _ := net.ParseCIDR("127.0.0.0/8")
	_, v6, _ := net.ParseCIDR("::1/128")
	template := certificateTemplate("iap development authority", caLifetime)
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	template.PermittedDNSDomainsCritical = true
	template.PermittedDNSDomains = []string{"localhost", "test"}
	template.PermittedIPRanges = []*net.IPNet{v4, v6}
	return issue(template, nil, certFile, keyFile)
}

func newServer(ca tls.Certificate, files CertFiles, names []string) error {
	template := certificateTemplate(names[0], serverLifetime)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	_, err := issue(template, &ca, files.Cert, files.Key)
	return err
}

func certificateTemplate(name string, lifetime time.Duration) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name, Organization: []string{"development only"}},
		NotBefore: time.Now().Add(-backdate),
		NotAfter:  time.Now().Add(lifetime),
	}
}

// issue signs template by parent, or by itself, and writes both files, the key first: a certificate without its key is useless, a key without its
// certificate is harmless.
func issue(template *x509.Certificate, parent *tls.Certificate, certFile, keyFile string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make certificate key: %w", err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return tls.Certificate{}, fmt.Errorf("make certificate serial: %w", err)
	}
	signer, by := any(key), template
	if parent != nil {
		signer, by = parent.PrivateKey, parent.Leaf
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), signer)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("sign certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("encode certificate key: %w", err)
	}
	if err := writeSecret(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return tls.Certificate{}, err
	}
	if err := writeSecret(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return tls.Certificate{}, err
	}
	return loadPair(certFile, keyFile)
}

func loadPair(certFile, keyFile string) (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("read certificate: %w", err)
	}
	if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
		return tls.Certificate{}, fmt.Errorf("read certificate: %w", err)
	}
	return pair, nil
}

// writeSecret replaces a file in one step. CreateTemp makes it 0600 before a byte is in it.
func writeSecret(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
