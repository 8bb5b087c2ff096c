package auth

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// fileStore keeps each name in a file of its own, mode 0600.
type fileStore struct{ dir string }

func (s fileStore) path(name string) string {
	return filepath.Join(s.dir, fileName(name)+".credentials.json")
}

func (s fileStore) Where() string { return s.dir }

func (s fileStore) Load(_ context.Context, name string) (Credentials, error) {
	data, err := readSecret(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return Credentials{}, ErrNotFound
	}
	if err != nil {
		return Credentials{}, fmt.Errorf("load credentials %q: %w", name, err)
	}
	return decodeCredentials(data)
}

func (s fileStore) Save(_ context.Context, name string, c Credentials) error {
	data, err := encodeCredentials(c)
	if err != nil {
		return err
	}
	return writeSecret(s.path(name), data)
}

func (s fileStore) Delete(_ context.Context, name string) error {
	if err := os.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete credentials %q: %w", name, err)
	}
	return nil
}
