package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// instanceForm is what a relay may be called: it stands in keys of the state and in names of logs.
var instanceForm = regexp.MustCompile(`\A[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?\z`)

// CheckInstance reports what is wrong with an id that a person chose.
func CheckInstance(id string) error {
	if !instanceForm.MatchString(id) {
		return fmt.Errorf("instance: %q is not made of a-z, 0-9, dot and dash, 63 at most", id)
	}
	return nil
}

// Instance returns the relay's id: the one in the file, which is made with a random one on first use. named, if not "",
// is the id that the configuration gives, and is not written down.
func Instance(path, named string) (string, error) {
	if named != "" {
		return named, CheckInstance(named)
	}
	data, err := os.ReadFile(path)
	if err == nil {
		id := strings.TrimSpace(string(data))
		if CheckInstance(id) != nil {
			return "", fmt.Errorf("read %s: it holds no instance id; remove it to have another made", path)
		}
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("instance id: %w", err)
	}
	random := make([]byte, 5)
	_, _ = rand.Read(random) // never fails
	id := "relay-" + hex.EncodeToString(random)
	return id, writeInstance(path, id)
}

// writeInstance makes the file whole or not at all.
func writeInstance(path, id string) (err error) {
	draft, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("instance id: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(draft.Name())
			err = fmt.Errorf("instance id: %w", err)
		}
	}()
	_, err = draft.WriteString(id + "\n")
	if err := errors.Join(err, draft.Sync(), draft.Close()); err != nil {
		return err
	}
	return os.Rename(draft.Name(), path)
}
