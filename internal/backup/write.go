package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gofrs/flock"

	"iap/internal/audit"
	"iap/internal/state"
)

// Options say what is backed up.
type Options struct {
	Data      string            // folder
	StateFile string            // of SQLite; "": the state is in PostgreSQL
	Audit     string            // folder of the log; "": without it
	Config    map[string]string // files of the configuration, by their names below config/
	Skip      []string          // paths below Data that only a running relay needs
	LeftOut   []LeftOut         // what the caller knows to be elsewhere

	Manifest Manifest // Version, Taken, Name, Instance
}

// workFolder is where the state is copied to, below Data.
const workFolder = ".backup"

// Write writes a backup, compressed and not sealed, and returns what is in it.
func Write(ctx context.Context, to io.Writer, o Options) (*Manifest, error) {
	work := filepath.Join(o.Data, workFolder)
	if err := os.MkdirAll(work, 0o700); err != nil {
		return nil, fmt.Errorf("back up: %w", err)
	}
	lock := flock.New(filepath.Join(work, "lock"), flock.SetPermissions(0o600))
	switch locked, err := lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("back up: %w", err)
	case !locked:
		return nil, errors.New("back up: another backup of this relay is being written")
	}
	defer lock.Unlock() // nothing is lost if it fails
	packed := gzip.NewWriter(to)
	w := &writer{ctx: ctx, tar: tar.NewWriter(packed), m: o.Manifest}
	w.m.Schema, w.m.State, w.m.Audit = Schema, "postgres", o.Audit != ""
	w.m.LeftOut = append([]LeftOut{}, o.LeftOut...)
	if o.StateFile != "" {
		w.m.State = "sqlite"
	}
	if err := w.all(o, work); err != nil {
		return nil, err
	}
	if err := errors.Join(w.tar.Close(), packed.Close()); err != nil {
		return nil, fmt.Errorf("back up: %w", err)
	}
	return &w.m, nil
}

// writer is one archive that is being written.
type writer struct {
	ctx context.Context
	tar *tar.Writer
	m   Manifest
}

// all writes the parts in the order that package documentation gives.
func (w *writer) all(o Options, work string) error {
	for _, name := range slices.Sorted(maps.Keys(o.Config)) {
		if err := w.file("config/"+name, o.Config[name], -1); err != nil {
			return err
		}
	}
	if err := w.data(o, work); err != nil {
		return err
	}
	if o.StateFile != "" {
		if err := w.state(o.StateFile, filepath.Join(work, StateName)); err != nil {
			return err
		}
	}
	if o.Audit != "" {
		if err := w.log(o.Audit); err != nil {
			return err
		}
	}
	text, err := json.MarshalIndent(w.m, "", " ")
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	if len(text) > maxManifest {
		return errors.New("back up: there are too many files")
	}
	return w.put(manifestName, int64(len(text)), bytes.NewReader(text))
}

func (w *writer) data(o Options, work string) error {
	keys, err := readKeys(w.ctx, o.Data)
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		if err := w.put("data/"+name, int64(len(keys[name])), bytes.NewReader(keys[name])); err != nil {
			return err
		}
	}
	skip := append([]string{work}, o.Skip...)
	if o.Audit != "" {
		skip = append(skip, o.Audit)
	}
	for _, suffix := range []string{"", "-wal", "-shm", ".lock", ".new"} {
		if o.StateFile != "" {
			skip = append(skip, o.StateFile+suffix)
		}
	}
	files, left, err := walk(w.ctx, o.Data, skip)
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	w.m.LeftOut = append(w.m.LeftOut, left...)
	for _, f := range files {
		if isKey(f.name) {
			continue
		}
		err := w.file(f.name, f.path, -1)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a draft that has got its name meanwhile, or what has expired
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) state(path, copied string) error {
	if err := os.Remove(copied); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("back up: %w", err) // what a killed backup has left
	}
	defer os.Remove(copied) // the next backup would
	if err := state.Snapshot(w.ctx, path, copied); err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	return w.file(StateName, copied, -1)
}

// log writes the segments with what stands beside them. The last one may be growing.
func (w *writer) log(dir string) error {
	segments, err := audit.Segments(dir)
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	beside, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	has := map[string]bool{}
	for _, d := range beside {
		has[d.Name()] = d.Type().IsRegular()
	}
	if has[audit.ExpiredFile] { // before the files that it will name next
		if err := w.file("audit/"+audit.ExpiredFile, filepath.Join(dir, audit.ExpiredFile), -1); err != nil {
			return err
		}
	}
	for i, s := range segments {
		if err := w.segment(dir, s.Name, i+1 == len(segments), has); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("back up: retention has just deleted %s; run it again", s.Name)
			}
			return err
		}
	}
	if has[audit.KeysFile] { // behind the checkpoints that they sign
		return w.file("audit/"+audit.KeysFile, filepath.Join(dir, audit.KeysFile), -1)
	}
	return nil
}

// segment writes the checkpoints before the lines that they sign.
func (w *writer) segment(dir, name string, last bool, has map[string]bool) error {
	path := filepath.Join(dir, name)
	if points := name + audit.CheckpointSuffix; has[points] {
		size, err := wholeLines(filepath.Join(dir, points))
		if err != nil {
			return err
		}
		if err := w.file("audit/"+points, filepath.Join(dir, points), size); err != nil {
			return err
		}
	}
	size, err := wholeLines(path)
	if err != nil {
		return err
	}
	if hashes := name + audit.HashSuffix; !last && has[hashes] {
		if err := w.file("audit/"+hashes, filepath.Join(dir, hashes), -1); err != nil {
			return err
		}
	}
	return w.file("audit/"+name, path, size)
}

// wholeLines is how far a file that grows reaches up to the end of its last whole line.
func wholeLines(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	block := make([]byte, 64<<10)
	for end := info.Size(); end > 0; {
		begin := max(0, end-int64(len(block)))
		n, err := f.ReadAt(block[:end-begin], begin)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if at := bytes.LastIndexByte(block[:n], '\n'); at >= 0 {
			return begin + int64(at) + 1, nil
		}
		end = begin
	}
	return 0, nil
}

// file adds the first size bytes of a file, all that it has now if size is negative.
func (w *writer) file(name, path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	defer f.Close()
	if size < 0 {
		info, err := f.Stat()
		if err != nil {
			return fmt.Errorf("back up: %w", err)
		}
		size = info.Size()
	}
	return w.put(name, size, f)
}

func (w *writer) put(name string, size int64, from io.Reader) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	if err := w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: w.m.Taken.Truncate(time.Second), Format: tar.FormatPAX}); err != nil {
		return fmt.Errorf("back up %s: %w", name, err)
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w.tar, sum), &cancelled{w.ctx, io.LimitReader(from, size)})
	if err == nil && n < size {
		err = errors.New("it became shorter while it was read; run it again")
	}
	if err != nil {
		return fmt.Errorf("back up %s: %w", name, err)
	}
	if name != manifestName {
		w.m.Files = append(w.m.Files, File{name, size, hex.EncodeToString(sum.Sum(nil))})
		w.m.Bytes += size
	}
	return nil
}

// cancelled is a reader that ends with its context.
type cancelled struct {
	ctx  context.Context
	from io.Reader
}

func (c *cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.from.Read(p)
}
