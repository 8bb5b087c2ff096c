package checkpoint

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"iap/internal/audit/tree"
	"iap/internal/relaykey"
)

const origin = "relay.example.com:8443/audit/main"

var epoch = time.Date(2026, 11, 24, 9, 30, 0, 123e6, time.UTC)

func newKey() (ed25519.PrivateKey, ed25519.PublicKey) {
	public, key, _ := ed25519.GenerateKey(rand.Reader) // never fails
	return key, public
}

func signed(t testing.TB, size int64, root byte, key ed25519.PrivateKey) Signed {
	t.Helper()
	s, err := Sign(Checkpoint{Origin: origin, Size: size, Root: tree.Hash{root}, Time: epoch}, key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCheckpointIsReadAsItWasSigned(t *testing.T) {
	key, public := newKey()
	for _, expired := range []uint64{0, 9} {
		want := Checkpoint{Origin: origin, Size: 7, Root: tree.Hash{1, 2}, Time: epoch, Expired: expired}
		if expired > 0 {
			want.Before = epoch
		}
		s, err := Sign(want, key)
		if err != nil {
			t.Fatal(err)
		}
		_, other := newKey()
		got, err := Open(s.Note, []ed25519.PublicKey{other, public})
		if err != nil || got.Checkpoint != want || !got.Key.Equal(public) {
			t.Errorf("%+v, %v", got, err)
		}
		verifier, err := note.NewVerifier(VerifierKey(origin, public))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := note.Open(s.Note, note.VerifierList(verifier)); err != nil {
			t.Errorf("a tool for signed notes refuses it: %v", err)
		}
		if _, err := Open(s.Note, []ed25519.PublicKey{other}); !errors.Is(err, ErrKey) {
			t.Errorf("by a key that did not sign: %v", err)
		}
	}
}

func TestEveryByteOfACheckpointCounts(t *testing.T) {
	key, public := newKey()
	s := signed(t, 7, 1, key)
	for i := range s.Note {
		for _, flip := range []byte{1, 0x20, 0x80} {
			changed := bytes.Clone(s.Note)
			changed[i] ^= flip
			if _, err := Open(changed, []ed25519.PublicKey{public}); err == nil {
				t.Errorf("byte %d may be changed: %q", i, changed)
			}
		}
		if _, err := Open(s.Note[:i], []ed25519.PublicKey{public}); err == nil {
			t.Errorf("cut at %d", i)
		}
	}
}

func TestWitnessRefusesWhatDoesNotExtend(t *testing.T) {
	var store tree.Range
	var roots []tree.Hash
	for i := range 10 {
		store.Add(tree.Leaf([]byte{byte(i)}), nil)
		roots = append(roots, store.Root())
	}
	at := func(size int, when time.Duration) Checkpoint {
		return Checkpoint{Origin: origin, Size: int64(size), Root: roots[size-1], Time: epoch.Add(when)}
	}
	// Of 4 in 8 the proof is the other half of the tree.
	var half tree.Range
	for i := 4; i < 8; i++ {
		half.Add(tree.Leaf([]byte{byte(i)}), nil)
	}
	proof := []tree.Hash{half.Root()}
	other := at(8, time.Minute)
	other.Root = tree.Hash{9}
	foreign := at(8, time.Minute)
	foreign.Origin = "other/audit/main"
	fork := at(4, time.Minute)
	fork.Root = tree.Hash{9}
	for _, c := range []struct {
		name       string
		held, next Checkpoint
		proof      []tree.Hash
		want       error
	}{
		{"extends", at(4, 0), at(8, time.Minute), proof, nil},
		{"same again", at(4, 0), at(4, 0), nil, nil},
		{"same lines, signed later", at(4, 0), at(4, time.Minute), nil, nil},
		{"no proof", at(4, 0), at(8, time.Minute), nil, ErrNoProof},
		{"another log", at(4, 0), foreign, proof, ErrNoProof},
		{"rewritten", at(4, 0), other, proof, ErrConflict},
		{"wrong proof", at(4, 0), at(8, time.Minute), []tree.Hash{{1}}, ErrConflict},
		{"endless proof", at(4, 0), at(8, time.Minute), make([]tree.Hash, MaxProof+1), ErrConflict},
		{"another root for the same lines", at(4, 0), fork, nil, ErrConflict},
		{"rolled back", at(8, 0), at(4, time.Minute), nil, ErrConflict},
		{"overtaken on its way", at(8, time.Minute), at(4, 0), nil, ErrStale},
		{"the same lines, overtaken", at(8, time.Minute), at(8, 0), nil, ErrStale},
	} {
		if got := Judge(c.held, c.next, c.proof); !errors.Is(got, c.want) || got == nil != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestKeyringFollowsStatementsBothWays(t *testing.T) {
	keys := make([]ed25519.PrivateKey, 4)
	public := make([]ed25519.PublicKey, 4)
	for i := range keys {
		keys[i], public[i] = newKey()
	}
	var chain []relaykey.Link
	for i := 1; i < 4; i++ {
		chain = append(chain, relaykey.Sign(keys[i-1], keys[i], int64(i), epoch))
	}
	f := KeyFile{Key: public[3]}
	f.Add(public[3], chain)
	for i := range keys {
		ring, err := Follow([]Anchor{{Hash: AnchorOf(public[i]).Hash}}, f)
		if err != nil || len(ring) != 4 {
			t.Fatalf("from key %d: %d keys, %v", i, len(ring), err)
		}
		for n := range public {
			if ring.Rank(public[n]) != n {
				t.Errorf("from key %d: key %d has rank %d", i, n, ring.Rank(public[n]))
			}
		}
	}
	thief, stolen := newKey()
	_ = thief
	if ring, err := Follow([]Anchor{AnchorOf(stolen)}, f); err != nil || len(ring) != 1 || ring.Rank(public[0]) >= 0 {
		t.Errorf("a foreign key leads to %d keys, %v", len(ring), err)
	}
	f.Chain = append(f.Chain, relaykey.Sign(keys[0], thief, 1, epoch))
	if _, err := Follow([]Anchor{AnchorOf(public[0])}, f); !errors.Is(err, ErrFork) {
		t.Errorf("two successors: %v", err)
	}
}

func TestKeysAreReadAsTheyAreShown(t *testing.T) {
	_, public := newKey()
	want := AnchorOf(public)
	for _, text := range []string{relaykey.ID(public), base64.StdEncoding.EncodeToString(public), VerifierKey(origin, public), " " + relaykey.ID(public) + "\n"} {
		if got, err := ParseAnchor(text); err != nil || got.Hash != want.Hash {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"", "SHA256:", "SHA256:AAAA", "abc", strings.Replace(VerifierKey(origin, public), "main", "mail", 1)} {
		if _, err := ParseAnchor(text); err == nil {
			t.Errorf("%q is read as a key", text)
		}
	}
}

func TestNotesThatStandTogetherAreTakenApart(t *testing.T) {
	key, _ := newKey()
	a, b := signed(t, 1, 1, key).Note, signed(t, 2, 2, key).Note
	for _, gap := range []string{"", "\n", "\n\n\n"} {
		got, err := Split([]byte(string(a) + gap + string(b) + gap))
		if err != nil || len(got) != 2 || !bytes.Equal(got[0], a) || !bytes.Equal(got[1], b) {
			t.Errorf("gap %q: %q, %v", gap, got, err)
		}
	}
	if _, err := Split([]byte("something else")); err == nil {
		t.Error("no note was read as one")
	}
}

func FuzzCheckpoint(f *testing.F) {
	key, public := newKey()
	f.Add(signed(f, 7, 1, key).Note)
	f.Add([]byte("a/audit/b\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\ntime 2026-11-24T09:30:00.123Z\n\n— a x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := Parse(data); err == nil && (c.Size <= 0 || !ValidOrigin(c.Origin)) {
			t.Errorf("%+v", c)
		}
		if s, err := Open(data, []ed25519.PublicKey{public}); err == nil && !bytes.Equal(s.Note, data) {
			t.Errorf("another note was verified than %q", data)
		}
		if notes, err := Split(data); err == nil && len(bytes.Join(notes, nil)) > len(data) {
			t.Error("notes out of nowhere")
		}
	})
}
