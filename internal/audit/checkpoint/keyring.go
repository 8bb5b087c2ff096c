package checkpoint

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"iap/internal/relaykey"
)

// MaxLinks bounds the changes of key that are followed: a century of monthly ones.
const MaxLinks = 1200

// Anchor is a key that somebody trusts: the key itself, or its SHA-256.
type Anchor struct {
	Key  ed25519.PublicKey // nil: only the hash is known
	Hash [sha256.Size]byte
}

// AnchorOf trusts a key.
func AnchorOf(key ed25519.PublicKey) Anchor { return Anchor{key, sha256.Sum256(key)} }

var errAnchor = errors.New("no relay key: want SHA256:… (a fingerprint), a key in base64, or origin+hash+key (a note's verifier)")

// ParseAnchor reads a key as it is shown somewhere: a fingerprint, base64, a verifier of notes.
func ParseAnchor(text string) (Anchor, error) {
	text = strings.TrimSpace(text)
	if digest, ok := strings.CutPrefix(text, "SHA256:"); ok {
		sum, err := base64.RawStdEncoding.DecodeString(digest)
		if err != nil || len(sum) != sha256.Size {
			return Anchor{}, errAnchor
		}
		return Anchor{Hash: [sha256.Size]byte(sum)}, nil
	}
	if parts := strings.SplitN(text, "+", 3); len(parts) == 3 && len(parts[1]) == 8 && ValidOrigin(parts[0]) {
		key, err := base64.StdEncoding.DecodeString(parts[2])
		if err == nil && len(key) == 1+ed25519.PublicKeySize && key[0] == algorithm && VerifierKey(parts[0], key[1:]) == text {
			return AnchorOf(key[1:]), nil
		}
	}
	if key, err := base64.StdEncoding.DecodeString(text); err == nil && len(key) == ed25519.PublicKeySize {
		return AnchorOf(key), nil
	}
	return Anchor{}, errAnchor
}

// KeyFile is what stands beside a log: the keys that sign its checkpoints, and the statements that lead from each to the
// next. It is no secret, and nothing in it is believed that does not follow from a trusted key.
type KeyFile struct {
	Key   []byte          `json:"key"`   // in force when the file was written
	Chain []relaykey.Link `json:"chain"` // by number
}

// ParseKeyFile reads one, bounded.
func ParseKeyFile(data []byte) (KeyFile, error) {
	var f KeyFile
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil || len(f.Key) != ed25519.PublicKeySize || len(f.Chain) > MaxLinks {
		return KeyFile{}, errors.New("read the log's keys: malformed")
	}
	if !bytes.Equal(f.Encode(), data) {
		return KeyFile{}, errors.New("read the log's keys: not as the relay writes them")
	}
	for _, l := range f.Chain {
		if err := l.Verify(); err != nil {
			return KeyFile{}, fmt.Errorf("read the log's keys: statement %d: %w", l.Number, err)
		}
	}
	return f, nil
}

// Encode is the file's content.
func (f KeyFile) Encode() []byte {
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil // a time beyond year 9999, which no statement has
	}
	return append(data, '\n')
}

// Add adds what is not known yet and says whether something was.
func (f *KeyFile) Add(key []byte, chain []relaykey.Link) bool {
	added := !bytes.Equal(f.Key, key)
	f.Key = bytes.Clone(key)
	for _, l := range chain {
		if !slices.ContainsFunc(f.Chain, func(o relaykey.Link) bool { return o.Number == l.Number && bytes.Equal(o.New, l.New) }) {
			f.Chain, added = append(f.Chain, l), true
		}
	}
	slices.SortStableFunc(f.Chain, func(a, b relaykey.Link) int { return int(a.Number - b.Number) })
	f.Chain = f.Chain[max(0, len(f.Chain)-MaxLinks):]
	return added
}

// Keyring is keys that may sign, in the order in which they came into force.
type Keyring []ed25519.PublicKey

// ErrFork: one key has named two successors. One of them was named by a thief; which one, the statements cannot tell.
var ErrFork = errors.New("the relay's key has named two successors")

// Follow finds the keys that statements lead to from what is trusted, in both directions: each statement is signed by
// both of its keys. Keys that are only known by their hash must be among those of the file.
func Follow(anchors []Anchor, f KeyFile) (Keyring, error) {
	trusted := map[string]bool{}
	know := func(key []byte) {
		for _, a := range anchors {
			if a.Hash == sha256.Sum256(key) {
				trusted[string(key)] = true
			}
		}
	}
	for _, a := range anchors {
		if a.Key != nil {
			trusted[string(a.Key)] = true
		}
	}
	know(f.Key)
	for _, l := range f.Chain {
		know(l.Old)
		know(l.New)
	}
	successor := map[string]relaykey.Link{}
	for grown := true; grown; {
		grown = false
		for _, l := range f.Chain {
			if !trusted[string(l.Old)] && !trusted[string(l.New)] || l.Verify() != nil {
				continue
			}
			if before, ok := successor[string(l.Old)]; ok {
				if !bytes.Equal(before.New, l.New) {
					return nil, fmt.Errorf("%w: %s", ErrFork, relaykey.ID(l.Old))
				}
				continue
			}
			successor[string(l.Old)] = l
			trusted[string(l.Old)], trusted[string(l.New)] = true, true
			grown = true
		}
	}
	return inOrder(trusted, successor), nil
}

// inOrder sorts keys by the statements that lead to them; a key without any stands for itself.
func inOrder(trusted map[string]bool, successor map[string]relaykey.Link) Keyring {
	number := map[string]int64{}
	for _, l := range successor {
		number[string(l.New)] = l.Number
		if _, ok := number[string(l.Old)]; !ok {
			number[string(l.Old)] = l.Number - 1
		}
	}
	var all Keyring
	for key := range trusted {
		all = append(all, ed25519.PublicKey(key))
	}
	slices.SortFunc(all, func(a, b ed25519.PublicKey) int {
		if d := number[string(a)] - number[string(b)]; d != 0 {
			return int(d)
		}
		return bytes.Compare(a, b)
	})
	return all
}

// Rank is the place of a key, -1 if it is none of them.
func (k Keyring) Rank(key ed25519.PublicKey) int {
	return slices.IndexFunc(k, func(o ed25519.PublicKey) bool { return bytes.Equal(o, key) })
}
