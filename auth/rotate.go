package auth

import (
	"fmt"
	"os"
	"path/filepath"
)

// RenameKey puts a key file in the place of another, atomically; when it returns
// the change is on disk.
func RenameKey(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("replace key: %w", err)
	}
	if err := syncDir(filepath.Dir(to)); err != nil {
		return fmt.Errorf("replace key %s: %w", to, err)
	}
	return nil
}

// WriteFile replaces a file of mode 0600 atomically, as SaveKey does.
func WriteFile(path string, data []byte) error { return writeSecret(path, data) }
