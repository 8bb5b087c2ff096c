package service

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const (
	maxFile = 64 << 10 // ours are below 4 KiB
	mark    = "made by iapctl service install, sha256 "
)

// EditedError says that a file is not as this package wrote it.
type EditedError struct{ File string }

func (e *EditedError) Error() string { return e.File + " was written or changed by somebody else" }

var marked = regexp.MustCompile(mark + `([0-9a-f]{64})`)

// sign puts the hash of the text into the place that manager.text left for it.
func sign(text string) string { return strings.Replace(text, mark, mark+hash(text), 1) }

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// signed reports whether a text is as sign made it.
func signed(text string) bool {
	found := marked.FindStringSubmatch(text)
	return found != nil && hash(strings.Replace(text, found[0], mark, 1)) == found[1]
}

// readOwn reads the file and says whether it is this package's. A link is not followed: it is somebody's.
func readOwn(path string) (exists, own bool, text string, err error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, "", nil
	}
	if err != nil {
		return false, false, "", fmt.Errorf("look at %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return true, false, "", nil
	}
	f, err := os.Open(path)
	if err != nil {
		return true, false, "", fmt.Errorf("open %s: %w", path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return true, false, "", fmt.Errorf("read %s: %w", path, err)
	}
	return true, signed(string(data)), string(data), nil
}

// writeOwn replaces the file in one step. It may name a command for tokens: nobody else reads it.
func writeOwn(path, text string, force bool) error {
	exists, own, _, err := readOwn(path)
	if err != nil {
		return err
	}
	if exists && !own && !force {
		return &EditedError{path}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // shared with others' units
		return fmt.Errorf("make directory for %s: %w", path, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".iapctl-*") // CreateTemp makes 0600 files
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = tmp.WriteString(text)
	if err == nil {
		err = tmp.Sync()
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the service's file: %w", err)
	}
	return nil
}
