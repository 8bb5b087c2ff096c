package profile

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"iap/internal/relaykey"
)

func newKey(t *testing.T) (ed25519.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return public, private
}

func TestRememberedRelayKeyMovesAlongItsOwnStatements(t *testing.T) {
	p := saved(t, testDirs(t), "work", Settings{Relay: "r"})
	first, signer := newKey(t)
	second, other := newKey(t)
	third, _ := newKey(t)
	chain := [][]byte{relaykey.Sign(signer, other, 1, time.Unix(1, 0)).Encode()}
	if err := p.LearnRelayKeys(t.Context(), second, chain); err != nil {
		t.Fatal(err)
	}
	if s, _ := p.State(); s.RelayKey != "" {
		t.Error("a first key was learnt in passing")
	}
	if err := p.Remember(t.Context(), first, nil, BindingExporter); err != nil {
		t.Fatal(err)
	}
	if err := p.LearnRelayKeys(t.Context(), first, chain); err != nil { // announced
		t.Fatal(err)
	}
	if err := p.CheckRelayKey(second, nil); err != nil {
		t.Errorf("the announced key: %v", err)
	}
	if s, _ := p.State(); !bytes.Equal(s.pin().Key, first) {
		t.Error("a look moved the pin")
	}
	if err := p.Remember(t.Context(), second, chain, BindingExporter); err != nil { // by discovery: nobody has proven it
		t.Fatal(err)
	}
	if s, _ := p.State(); !bytes.Equal(s.pin().Key, first) {
		t.Error("a key that nobody has proven was kept")
	}
	if err := p.LearnRelayKeys(t.Context(), second, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.CheckRelayKey(first, chain); !errors.Is(err, ErrRelayKeyChanged) || !errors.Is(err, relaykey.ErrRetired) {
		t.Errorf("back to the first: %v", err)
	}
	for _, bad := range [][][]byte{nil, chain, {[]byte("x")}} {
		if err := p.LearnRelayKeys(t.Context(), third, bad); !errors.Is(err, ErrRelayKeyChanged) {
			t.Errorf("a foreign key: %v", err)
		}
	}
	if s, _ := p.State(); !bytes.Equal(s.pin().Key, second) {
		t.Error("the pin is elsewhere")
	}
}
