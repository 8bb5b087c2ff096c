package checkpoint

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"iap/internal/audit/tree"
)

// MaxNote is the longest note that is read: ten times what one takes, for other signatures on it.
const MaxNote = 8 << 10

const (
	timeLine     = "time "
	expiredLine  = "expired "
	timeForm     = "2006-01-02T15:04:05.000Z"
	algorithm    = 1 // Ed25519, in a key's hash and in front of a key
	maxLines     = 16
	signatureSep = "\n\n"
)

// Why a note is not believed.
var (
	ErrMalformed = errors.New("no checkpoint in the form of C2SP tlog-checkpoint")
	ErrKey       = errors.New("signed by no key that is trusted")
	ErrSignature = errors.New("the signature does not fit")
)

// Checkpoint is the text.
type Checkpoint struct {
	Origin  string
	Size    int64 // lines
	Root    tree.Hash
	Time    time.Time // UTC, in milliseconds
	Expired uint64    // of the head of a log whose first Size lines have expired: the number of the last of these records
	Before  time.Time // of such a head: when the first record that is left was written
}

// Signed is a checkpoint whose signature was verified.
type Signed struct {
	Checkpoint
	Note []byte            // as it was signed
	Key  ed25519.PublicKey // that signed
}

func (c Checkpoint) text() string {
	text := fmt.Sprintf("%s\n%d\n%s\n%s%s\n", c.Origin, c.Size, c.Root, timeLine, c.Time.UTC().Format(timeForm))
	if c.Expired > 0 {
		text += fmt.Sprintf("%s%d %s\n", expiredLine, c.Expired, c.Before.UTC().Format(timeForm))
	}
	return text
}

// Sign signs c. The time is cut to milliseconds.
func Sign(c Checkpoint, key ed25519.PrivateKey) (Signed, error) {
	if !ValidOrigin(c.Origin) || c.Size <= 0 {
		return Signed{}, fmt.Errorf("sign checkpoint of %q with %d lines: %w", c.Origin, c.Size, ErrMalformed)
	}
	c.Time, c.Before = c.Time.UTC().Truncate(time.Millisecond), c.Before.UTC().Truncate(time.Millisecond)
	signed, err := note.Sign(&note.Note{Text: c.text()}, signer{c.Origin, key})
	if err != nil {
		return Signed{}, fmt.Errorf("sign checkpoint: %w", err)
	}
	return Signed{c, signed, key.Public().(ed25519.PublicKey)}, nil
}

// ValidOrigin says whether a log may have this name: it is also the name of its key.
func ValidOrigin(origin string) bool {
	return origin != "" && len(origin) <= 512 && !strings.ContainsFunc(origin, func(r rune) bool { return r <= ' ' || r == '+' || r > '~' })
}

// Parse reads a note's text without believing it.
func Parse(data []byte) (Checkpoint, error) {
	var c Checkpoint
	if len(data) > MaxNote {
		return c, ErrMalformed
	}
	text, _, ok := bytes.Cut(data, []byte(signatureSep))
	lines := strings.Split(string(text), "\n")
	if !ok || len(lines) < 4 || len(lines) > maxLines || !ValidOrigin(lines[0]) {
		return c, ErrMalformed
	}
	c.Origin = lines[0]
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size <= 0 || strconv.FormatInt(size, 10) != lines[1] {
		return c, ErrMalformed
	}
	c.Size = size
	if c.Root, err = tlog.ParseHash(lines[2]); err != nil || c.Root.String() != lines[2] {
		return c, ErrMalformed
	}
	for _, line := range lines[3:] {
		if head, ok := strings.CutPrefix(line, expiredLine); ok {
			through, before, _ := strings.Cut(head, " ")
			c.Expired, err = strconv.ParseUint(through, 10, 64)
			if c.Before, _ = time.Parse(timeForm, before); err != nil || c.Before.IsZero() {
				return c, ErrMalformed
			}
		} else if stamp, ok := strings.CutPrefix(line, timeLine); ok {
			if c.Time, err = time.Parse(timeForm, stamp); err != nil {
				return c, ErrMalformed
			}
		}
	}
	if c.Time.IsZero() {
		return c, ErrMalformed
	}
	return c, nil
}

// Open reads a note and verifies its signature by one of the keys.
func Open(data []byte, keys []ed25519.PublicKey) (Signed, error) {
	c, err := Parse(data)
	if err != nil {
		return Signed{}, err
	}
	verifiers := make([]note.Verifier, len(keys))
	for i, key := range keys {
		verifiers[i] = verifier{c.Origin, key}
	}
	opened, err := note.Open(data, note.VerifierList(verifiers...))
	var unknown *note.UnverifiedNoteError
	var wrong *note.InvalidSignatureError
	switch {
	case errors.As(err, &unknown):
		return Signed{Checkpoint: c}, ErrKey
	case errors.As(err, &wrong):
		return Signed{Checkpoint: c}, ErrSignature
	case err != nil:
		return Signed{Checkpoint: c}, ErrMalformed
	}
	if !bytes.Equal(canonical(opened), data) {
		return Signed{Checkpoint: c}, ErrMalformed
	}
	i := slices.IndexFunc(keys, func(k ed25519.PublicKey) bool { return keyHash(c.Origin, k) == opened.Sigs[0].Hash })
	return Signed{c, bytes.Clone(data), keys[i]}, nil
}

// canonical is the note as it would be written, with every signature in the place where it belongs: the library reads
// more than one spelling of a signature.
func canonical(n *note.Note) []byte {
	b := []byte(n.Text + "\n")
	for _, sigs := range [][]note.Signature{n.Sigs, n.UnverifiedSigs} {
		for _, s := range sigs {
			raw, err := base64.StdEncoding.Strict().DecodeString(s.Base64)
			if err != nil {
				return nil
			}
			b = fmt.Appendf(b, "— %s %s\n", s.Name, base64.StdEncoding.EncodeToString(raw))
		}
	}
	return b
}

// Split finds the notes that stand one behind the other in data, with empty lines between them.
func Split(data []byte) (notes [][]byte, err error) {
	for data = bytes.TrimLeft(data, "\r\n"); len(data) > 0; data = bytes.TrimLeft(data, "\r\n") {
		text := bytes.Index(data, []byte(signatureSep))
		if text < 0 {
			return nil, ErrMalformed
		}
		end := text + len(signatureSep)
		for bytes.HasPrefix(data[end:], []byte("— ")) {
			line := bytes.IndexByte(data[end:], '\n')
			if line < 0 {
				return nil, ErrMalformed
			}
			end += line + 1
		}
		notes, data = append(notes, data[:end]), data[end:]
	}
	return notes, nil
}

// VerifierKey is the key in the form that tools for signed notes take.
func VerifierKey(origin string, key ed25519.PublicKey) string {
	return fmt.Sprintf("%s+%08x+%s", origin, keyHash(origin, key), base64.StdEncoding.EncodeToString(append([]byte{algorithm}, key...)))
}

func keyHash(origin string, key ed25519.PublicKey) uint32 {
	h := sha256.New()
	h.Write([]byte(origin + "\n"))
	h.Write([]byte{algorithm})
	h.Write(key)
	return binary.BigEndian.Uint32(h.Sum(nil))
}

type signer struct {
	name string
	key  ed25519.PrivateKey
}

func (s signer) Name() string                     { return s.name }
func (s signer) KeyHash() uint32                  { return keyHash(s.name, s.key.Public().(ed25519.PublicKey)) }
func (s signer) Sign(text []byte) ([]byte, error) { return ed25519.Sign(s.key, text), nil }

type verifier struct {
	name string
	key  ed25519.PublicKey
}

func (v verifier) Name() string                       { return v.name }
func (v verifier) KeyHash() uint32                    { return keyHash(v.name, v.key) }
func (v verifier) Verify(text, signature []byte) bool { return ed25519.Verify(v.key, text, signature) }
