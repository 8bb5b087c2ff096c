package auth

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// ErrNotFound says that a store holds no credentials by that name.
var ErrNotFound = errors.New("no stored credentials")

// Credentials are what a login leaves behind: tokens and the session key they
// belong to.
type Credentials struct {
	Tokens Tokens             `json:"tokens"`
	Key    ed25519.PrivateKey `json:"key"` // base64 in JSON
}

// Store keeps credentials by name (a profile). It is safe for concurrent use;
// several processes agree through WithLock.
type Store interface {
	Load(ctx context.Context, name string) (Credentials, error) // ErrNotFound
	Save(ctx context.Context, name string, c Credentials) error
	Delete(ctx context.Context, name string) error // of nothing: no error
	Where() string                                 // for people: "the system keyring" or a directory
}

// OpenStore returns the store for a directory: the operating system's keyring if
// that is preferred and answers a probe, else files of mode 0600 in the directory.
// Credentials too large for the keyring (Windows takes 2,560 bytes) go to the
// directory too. Where tells which it is.
func OpenStore(dir string, preferKeyring bool, log *slog.Logger) Store {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	files := fileStore{dir}
	if !preferKeyring {
		return files
	}
	ring := &keyringStore{ring: systemKeyring{}, dir: dir, files: files, log: log}
	if err := ring.probe(); err != nil {
		log.Info("no keyring, credentials are kept in files", "dir", dir, "error", err)
		return files
	}
	return ring
}

// encodeCredentials and decodeCredentials are the one form of both stores.
func encodeCredentials(c Credentials) ([]byte, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode credentials: %w", err)
	}
	return data, nil
}

func decodeCredentials(data []byte) (Credentials, error) {
	var c Credentials
	if err := json.Unmarshal(data, &c); err != nil {
		// The decoder's own words may quote what it read.
		return Credentials{}, errors.New("stored credentials are damaged; log in again")
	}
	if n := len(c.Key); n != 0 && n != ed25519.PrivateKeySize {
		return Credentials{}, errors.New("stored key is damaged; log in again")
	}
	return c, nil
}

// fileName turns any name into one that stays in its directory, on every system,
// and never the same for two names.
func fileName(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}
