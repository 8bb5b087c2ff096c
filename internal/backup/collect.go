package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	maxKeyFile = 1 << 20
	readings   = 5 // until two agree
)

// found is one file of a data folder.
type found struct{ name, path string }

// walk lists the data folder's files, without those that skip names by their path or its
// folder's. What is no plain file is left out, and said.
func walk(ctx context.Context, root string, skip []string) (files []found, left []LeftOut, err error) {
	err = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case slices.Contains(skip, file):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir() || d.Type()&fs.ModeSocket != 0:
			return nil
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		if !d.Type().IsRegular() {
			left = append(left, LeftOut{name, "it is no plain file"})
			return nil
		}
		if len(files) == maxFiles {
			return fmt.Errorf("%s holds more than %d files", root, maxFiles)
		}
		files = append(files, found{"data/" + filepath.ToSlash(name), file})
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the data folder: %w", err)
	}
	return files, left, nil
}

// readKeys reads the relay's keys and what leads from one to the next: a change of key moves
// several files, so they are read until nothing moves.
func readKeys(ctx context.Context, root string) (map[string][]byte, error) {
	before, err := readOnce(root)
	for range readings {
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		again, err := readOnce(root)
		if err != nil {
			return nil, err
		}
		if maps.EqualFunc(before, again, bytes.Equal) {
			return again, nil
		}
		before = again
	}
	return nil, errors.New("read the relay's keys: they change all the time; try again")
}

func readOnce(root string) (map[string][]byte, error) {
	paths, err := filepath.Glob(filepath.Join(root, "relay.key*"))
	if err != nil {
		return nil, fmt.Errorf("read the relay's keys: %w", err)
	}
	all := map[string][]byte{}
	for _, path := range paths {
		info, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // the next reading tells
		case err != nil:
			return nil, fmt.Errorf("read the relay's keys: %w", err)
		case !info.Mode().IsRegular() || info.Size() > maxKeyFile:
			return nil, fmt.Errorf("read the relay's keys: %s is no file of a key", path)
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the relay's keys: %w", err)
		}
		all[filepath.Base(path)] = data
	}
	return all, nil
}

// isKey reports whether a name of the data folder belongs to the relay's keys.
func isKey(name string) bool { return strings.HasPrefix(name, "data/relay.key") }
