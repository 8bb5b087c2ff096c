package auth

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// writeSecret replaces a file atomically: a reader sees the old or the new content,
// never a part, also after a crash, and the file is never readable by others.
func writeSecret(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	if err := secretDir(dir); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	return err
}

// secretDir makes the directory for its owner only, and refuses one in which others
// could replace the files.
func secretDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	return checkSecretDir(dir, info)
}

// readSecret reads a file that writeSecret may have written. It refuses one that
// others can read: its content has to be taken as known.
func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err == nil {
		err = checkSecretFile(info)
	}
	if err != nil {
		return nil, fmt.Errorf("read secret %s: %w", path, err)
	}
	return readBounded(f, path, maxSecretBytes)
}

func readBounded(r io.Reader, name string, limit int) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > limit {
		return nil, fmt.Errorf("read %s: longer than %d bytes", name, limit)
	}
	return data, nil
}
