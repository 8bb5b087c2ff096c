package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Read reads a backup to its end and checks every file against the manifest. If dir is not
// "", which must be an empty folder then, it is unpacked there; who calls puts it in its
// place only if there is no error.
func Read(ctx context.Context, from io.Reader, dir string) (*Manifest, error) {
	stream := bufio.NewReader(&cancelled{ctx, from})
	packed, err := gzip.NewReader(stream)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	packed.Multistream(false)
	r := reader{archive: tar.NewReader(packed), read: map[string]File{}}
	if dir != "" {
		if r.root, err = os.OpenRoot(dir); err != nil {
			return nil, fmt.Errorf("unpack the backup: %w", err)
		}
		defer r.root.Close()
	}
	manifest, err := r.all()
	if err != nil {
		return nil, err
	}
	for _, end := range []io.Reader{packed, stream} { // where either finds its sum or its seal wrong
		switch n, err := io.CopyN(io.Discard, end, 1); {
		case n > 0:
			return nil, fmt.Errorf("%w: there is more behind its end", ErrIncomplete)
		case !errors.Is(err, io.EOF):
			return nil, fmt.Errorf("%w: %w", ErrIncomplete, err)
		}
	}
	return manifest, nil
}

// reader is one archive that is being read.
type reader struct {
	archive *tar.Reader
	root    *os.Root // nil: nothing is unpacked
	read    map[string]File
}

func (r *reader) all() (*Manifest, error) {
	for {
		h, err := r.archive.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("%w: it ends without a manifest", ErrIncomplete)
		case err != nil:
			return nil, fmt.Errorf("%w: %w", ErrIncomplete, err)
		}
		if err := checkName(h.Name); err != nil {
			return nil, fmt.Errorf("this is no backup of a relay: %w", err)
		}
		_, twice := r.read[h.Name]
		switch {
		case h.Typeflag != tar.TypeReg:
			return nil, fmt.Errorf("this is no backup of a relay: %s is no plain file", h.Name)
		case twice:
			return nil, fmt.Errorf("this is no backup of a relay: %s stands twice", h.Name)
		case len(r.read) == maxFiles:
			return nil, errors.New("this is no backup of a relay: it has too many files")
		case h.Name == manifestName:
			return r.manifest(h.Size)
		}
		if err := r.file(h.Name, h.Size); err != nil {
			return nil, err
		}
	}
}

func (r *reader) file(name string, size int64) error {
	sum := sha256.New()
	to := io.Writer(sum)
	var f *os.File
	if r.root != nil {
		var err error
		if err = r.root.MkdirAll(filepath.Dir(filepath.FromSlash(name)), 0o700); err == nil {
			f, err = r.root.OpenFile(filepath.FromSlash(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		}
		if err != nil {
			return fmt.Errorf("unpack the backup: %w", err)
		}
		to = io.MultiWriter(f, sum)
	}
	n, err := io.Copy(to, r.archive)
	if f != nil {
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	if n != size {
		return fmt.Errorf("%w: %s is cut off", ErrIncomplete, name)
	}
	r.read[name] = File{name, n, hex.EncodeToString(sum.Sum(nil))}
	return nil
}

// manifest reads the last file and holds all others against it.
func (r *reader) manifest(size int64) (*Manifest, error) {
	if size > maxManifest {
		return nil, errors.New("this is no backup of a relay: its manifest is too long")
	}
	text, err := io.ReadAll(r.archive)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	var m Manifest
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&m); err != nil {
		return nil, fmt.Errorf("this is no backup of a relay: read its manifest: %w", err)
	}
	if m.Schema != Schema {
		return nil, fmt.Errorf("the backup is of the kind %q, which this program does not know; use the one that wrote it", m.Schema)
	}
	if len(m.Files) != len(r.read) {
		return nil, fmt.Errorf("%w: it has %d files, and its manifest names %d", ErrIncomplete, len(r.read), len(m.Files))
	}
	for _, f := range m.Files {
		if r.read[f.Name] != f {
			return nil, fmt.Errorf("%w: %s is not what the manifest names", ErrIncomplete, f.Name)
		}
	}
	if _, err := r.archive.Next(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: there is more behind the manifest", ErrIncomplete)
	}
	return &m, nil
}
