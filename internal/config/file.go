package config

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// limited reads one byte more than a file may have, so that Load can tell.
func limited(r io.Reader) io.Reader { return io.LimitReader(r, maxFileBytes+1) }

// reason takes the path out of a file error: the caller names the file.
func reason(err error) string {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err.Error()
	}
	return err.Error()
}

// Resolve returns path as seen from the folder of the configuration file that
// names it: relative paths belong to the file, not to the process.
func Resolve(file, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}

// WriteNew writes data to a file that must not exist yet, so that a set-up
// command never overwrites what somebody has edited.
func WriteNew(file string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
