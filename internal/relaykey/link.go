package relaykey

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

const (
	// MaxChain is how many rotations somebody can have missed and still follow.
	MaxChain = 8
	// maxLink bounds one statement: four times what it takes.
	maxLink = 2 << 10

	successorLabel  = "iap-relay-successor-v1"
	possessionLabel = "iap-relay-possession-v1"
)

// A Link is the statement that Old is followed by New.
type Link struct {
	Old       []byte    `json:"old"`
	New       []byte    `json:"new"`
	Number    int64     `json:"number"` // of New; a relay's first key has none
	From      time.Time `json:"from"`   // when New comes into force; whole seconds
	Signature []byte    `json:"signature"`
	Proof     []byte    `json:"proof"`
}

// Sign makes the link from one key to the next.
func Sign(old, next ed25519.PrivateKey, number int64, from time.Time) Link {
	l := Link{
		Old: old.Public().(ed25519.PublicKey), New: next.Public().(ed25519.PublicKey),
		Number: number, From: from.UTC().Truncate(time.Second),
	}
	l.Signature = ed25519.Sign(old, l.signed(successorLabel))
	l.Proof = ed25519.Sign(next, l.signed(possessionLabel))
	return l
}

var errBadLink = errors.New("not signed by both of its keys")

// Verify reports what is wrong with the link in itself. That Old may be believed
// is for the caller to know.
func (l Link) Verify() error {
	switch {
	case len(l.Old) != ed25519.PublicKeySize || len(l.New) != ed25519.PublicKeySize || bytes.Equal(l.Old, l.New) || l.Number < 1:
		return errors.New("malformed")
	case !ed25519.Verify(l.Old, l.signed(successorLabel), l.Signature), !ed25519.Verify(l.New, l.signed(possessionLabel), l.Proof):
		return errBadLink
	}
	return nil
}

func (l Link) signed(label string) []byte {
	var b []byte
	for _, part := range [][]byte{
		[]byte(label), binary.BigEndian.AppendUint64(nil, uint64(l.Number)), binary.BigEndian.AppendUint64(nil, uint64(l.From.Unix())), l.Old, l.New,
	} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}

// Encode is the link on the wire and on disk.
func (l Link) Encode() []byte {
	b, err := json.Marshal(l)
	if err != nil {
		return nil // a time beyond year 9999, which nobody reads either
	}
	return b
}

// Parse reads what Encode wrote and verifies it.
func Parse(b []byte) (Link, error) {
	var l Link
	if len(b) > maxLink {
		return l, errors.New("read relay key statement: too long")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil || d.More() {
		return Link{}, errors.New("read relay key statement: malformed")
	}
	if err := l.Verify(); err != nil {
		return Link{}, fmt.Errorf("read relay key statement: %w", err)
	}
	return l, nil
}
