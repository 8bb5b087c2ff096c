package auth

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestKeyFileKeepsTheKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.key")
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := SaveKey(path, key); err != nil {
		t.Fatal(err)
	}
	got, err := LoadKey(path)
	if err != nil || !got.Equal(key) {
		t.Errorf("%v", err)
	}
	if runtime.GOOS != "windows" {
		_ = os.Chmod(path, 0o640)
		if _, err := LoadKey(path); err == nil {
			t.Error("a key that others can read was used")
		}
	}
}

func TestLoadKeyTakesEd25519Only(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	der, _ := x509.MarshalPKCS8PrivateKey(sharedRSA())
	for _, data := range [][]byte{
		nil,
		[]byte("text"),
		pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: []byte("x")}),
		pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
	} {
		if err := writeSecret(path, data); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(path); err == nil {
			t.Errorf("%.30q was taken for a key", data)
		}
	}
}

// The values are part of the protocol between releases.
func TestNamesOfAKeyAreStable(t *testing.T) {
	pub := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	if got, want := KeyID(pub), "SHA256:E545QOZLVJFyIIjZoNdBYo/IJuCUddNBp4Cs3jxLgHA"; got != want {
		t.Errorf("KeyID %s, want %s", got, want)
	}
	if got, want := NonceForKey(pub), "H5AENseWc2IcTsp8b_1c4slFMsu5CSBqMDFc_NjqfYY"; got != want {
		t.Errorf("NonceForKey %s, want %s", got, want)
	}
}

func TestSignedBytesAreDifferentForDifferentFields(t *testing.T) {
	pub := make(ed25519.PublicKey, 32)
	all := [][]byte{
		JoinRequestBytes("r", "t", "a", pub, []byte("n")),
		JoinRequestBytes("rt", "", "a", pub, []byte("n")),
		JoinRequestBytes("r", "ta", "", pub, []byte("n")),
		JoinRequestBytes("r", "t", "a", pub, []byte("n\x00")),
		JoinReplyBytes("r", "t", "a", pub, nil, []byte("n")),
		JoinReplyBytes("r", "t", "a", pub, pub, []byte("n")),
		signedBytes(domainJoinSecret, []byte("r")),
	}
	for i, a := range all {
		for _, b := range all[:i] {
			if bytes.Equal(a, b) {
				t.Errorf("two lists of fields are signed as one: %q", a)
			}
		}
	}
}
