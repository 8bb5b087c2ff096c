package relaykey

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
)

// Why a relay's key is not believed. Each comes wrapped with both keys.
var (
	// ErrOther: no link leads from the pinned key to the one shown.
	ErrOther = errors.New("the relay shows another key than the one pinned, and the pinned key did not name it")
	// ErrForged: what is shown as a statement of the pinned key is not signed by it.
	ErrForged = errors.New("the relay shows a new key with a statement that the pinned key did not sign")
	// ErrRetired: the key shown was replaced before.
	ErrRetired = errors.New("the relay shows a key that it had replaced")
	// ErrFork: the pinned key has named another successor before.
	ErrFork = errors.New("the relay's key names another successor than before")
	// ErrTooLong: more links than anybody is expected to follow.
	ErrTooLong = errors.New("the relay shows more key changes than can be followed")
)

// A Pin is what somebody holds a relay to: its key, and what that key has said of
// the next one. It is a plain value; keep it where nobody else writes.
type Pin struct {
	Key    []byte   `json:"key" yaml:"key"`                           // Ed25519
	Number int64    `json:"number,omitempty" yaml:"number,omitempty"` // of Key; 0: not known
	Next   []byte   `json:"next,omitempty" yaml:"next,omitempty"`     // the link by which Key names the next, encoded
	Past   [][]byte `json:"past,omitempty" yaml:"past,omitempty"`     // SHA-256 of the keys before, newest first
}

// maxPast bounds Pin.Past.
const maxPast = 2 * MaxChain

// Follow judges a relay that shows the key and the chain, and returns the pin as
// it is once the relay has proven to hold that key. Nothing that is not signed,
// step by step, from the pinned key on counts.
func (p Pin) Follow(shown []byte, chain [][]byte) (Pin, error) {
	if len(chain) > MaxChain {
		return p, p.refused(ErrTooLong, shown)
	}
	if !bytes.Equal(shown, p.Key) && p.knew(shown) {
		return p, p.refused(ErrRetired, shown)
	}
	links, forged := parseAll(append([][]byte{p.Next}, chain...))
	at := p
	for range MaxChain + 2 { // what was heard before may be one more
		link, err := at.successor(links)
		if err != nil {
			return p, p.refused(err, shown)
		}
		if bytes.Equal(at.Key, shown) { // here we are; what it says of the next key is worth keeping
			if link != nil {
				at.Next = link.Encode()
			}
			return at, nil
		}
		if link == nil && forged {
			return p, p.refused(ErrForged, shown)
		}
		if link == nil {
			return p, p.refused(ErrOther, shown)
		}
		at = at.moved(*link)
	}
	return p, p.refused(ErrTooLong, shown)
}

// successor is the link by which the pin's key names the next: the one heard of
// before, or the one in chain. Two that differ are a fork.
func (p Pin) successor(links []Link) (*Link, error) {
	var found *Link
	for _, l := range links {
		if !bytes.Equal(l.Old, p.Key) || p.knew(l.New) || p.Number > 0 && l.Number != p.Number+1 {
			continue
		}
		if found != nil && (!bytes.Equal(found.New, l.New) || found.Number != l.Number) {
			return nil, ErrFork
		}
		found = &l
	}
	return found, nil
}

// parseAll leaves out what is no statement, and tells whether there was such.
func parseAll(chain [][]byte) (links []Link, forged bool) {
	for _, encoded := range chain {
		if len(encoded) == 0 {
			continue
		}
		l, err := Parse(encoded)
		if err != nil {
			forged = true
			continue
		}
		links = append(links, l)
	}
	return links, forged
}

func (p Pin) moved(l Link) Pin {
	sum := sha256.Sum256(p.Key)
	past := append([][]byte{sum[:]}, p.Past...)
	return Pin{Key: l.New, Number: l.Number, Past: past[:min(len(past), maxPast)]}
}

func (p Pin) knew(key []byte) bool {
	sum := sha256.Sum256(key)
	for _, one := range p.Past {
		if bytes.Equal(one, sum[:]) {
			return true
		}
	}
	return false
}

func (p Pin) refused(why error, shown []byte) error {
	return fmt.Errorf("%w (pinned %s, shown %s)", why, ID(p.Key), ID(shown))
}

// Equal reports whether both pins say the same.
func (p Pin) Equal(o Pin) bool {
	return bytes.Equal(p.Key, o.Key) && p.Number == o.Number && bytes.Equal(p.Next, o.Next)
}

// ID names a key for people, as OpenSSH prints fingerprints.
func ID(key []byte) string {
	sum := sha256.Sum256(key)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// FollowHash is Follow for who knows the pinned key by its SHA-256 alone: the
// holder of a join token.
func FollowHash(hash, shown []byte, chain [][]byte) (Pin, error) {
	first := shown
	for _, encoded := range chain[:min(len(chain), MaxChain+1)] {
		if l, err := Parse(encoded); err == nil && hashed(l.Old, hash) {
			first = l.Old
		}
	}
	if !hashed(first, hash) {
		return Pin{}, fmt.Errorf("%w (shown %s)", ErrOther, ID(shown))
	}
	return Pin{Key: first}.Follow(shown, chain)
}

func hashed(key, hash []byte) bool {
	sum := sha256.Sum256(key)
	return bytes.Equal(sum[:], hash)
}
