// Package sealed encrypts files so that who writes them cannot read them: to the
// public keys of age (https://age-encryption.org/v1), with which any other program of
// that format opens them too.
//
// It exists so that one place knows that format, and what it is given: keys typed on a
// command line or kept in files.
package sealed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"
)

// maxKeys bounds a file of keys.
const maxKeys = 64 << 10

// header is how every file of the format begins.
const header = "age-encryption.org/"

// Recipients are whose keys open what is sealed.
type Recipients struct{ all []age.Recipient }

// ParseRecipients reads public keys, each age1… or the name of a file with some, one a
// line. There must be one.
func ParseRecipients(texts []string) (Recipients, error) {
	var r Recipients
	for _, text := range texts {
		data := []byte(text)
		if !strings.HasPrefix(text, "age1") {
			var err error
			if data, err = readKeys(text); err != nil {
				return Recipients{}, fmt.Errorf("%s is neither a key (age1…) nor a file with some: %w", text, err)
			}
		}
		if bytes.Contains(data, []byte("AGE-SECRET-KEY-")) {
			return Recipients{}, fmt.Errorf("%s holds a private key: name its public one (age-keygen -y), and keep this one away from here", text)
		}
		found, err := age.ParseRecipients(bytes.NewReader(data))
		if err != nil {
			return Recipients{}, fmt.Errorf("no key of age: %s: %w", text, err)
		}
		r.all = append(r.all, found...)
	}
	if len(r.all) == 0 {
		return Recipients{}, errors.New("no key is named: make one with age-keygen, and name its public key age1…")
	}
	return r, nil
}

// Writer seals what is written to it. It must be closed: what is not ends in the
// middle, and no reader takes it for whole.
func (r Recipients) Writer(w io.Writer) (io.WriteCloser, error) { return age.Encrypt(w, r.all...) }

// Identities are private keys.
type Identities struct{ all []age.Identity }

// ReadIdentities reads the private keys in a file of age-keygen's.
func ReadIdentities(path string) (Identities, error) {
	data, err := readKeys(path)
	if err != nil {
		return Identities{}, fmt.Errorf("read the private key: %w", err)
	}
	if Is(data) || bytes.HasPrefix(data, []byte("-----BEGIN AGE ENCRYPTED FILE")) {
		return Identities{}, fmt.Errorf("the private key in %s is protected by a passphrase: open it first, age -d %s > FILE", path, path)
	}
	found, err := age.ParseIdentities(bytes.NewReader(data))
	if err != nil {
		return Identities{}, fmt.Errorf("%s holds no private key of age (AGE-SECRET-KEY-…): %w", path, err)
	}
	return Identities{found}, nil
}

// ErrWrongKey: what was sealed is for other keys.
var ErrWrongKey = errors.New("it is sealed to other keys than this one")

// Reader opens what is sealed. What was changed or cut off is an error of Read, not an
// end.
func (i Identities) Reader(r io.Reader) (io.Reader, error) {
	opened, err := age.Decrypt(r, i.all...)
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return nil, ErrWrongKey
	}
	return opened, err
}

// Is reports whether data is the beginning of something sealed.
func Is(data []byte) bool { return bytes.HasPrefix(data, []byte(header)) }

func readKeys(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeys+1))
	if err == nil && len(data) > maxKeys {
		err = errors.New("it is too long for keys")
	}
	return data, err
}
