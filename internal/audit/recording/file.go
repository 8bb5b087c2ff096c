package recording

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
)

// Mark is what the audit log holds of one file: it changes if any byte of it does.
type Mark struct {
	SHA256 string // of the encrypted file, in hex
	Bytes  int64
}

func (m Mark) String() string { return fmt.Sprintf("%s %d", m.SHA256, m.Bytes) }

// ParseMark reads what String writes.
func ParseMark(text string) (m Mark, ok bool) {
	n, err := fmt.Sscanf(text, "%64s %d", &m.SHA256, &m.Bytes)
	raw, bad := hex.DecodeString(m.SHA256)
	return m, err == nil && n == 2 && bad == nil && len(raw) == sha256.Size
}

// file is an encrypted file that is being written. It holds one chunk of age's, 64 KiB. It is for one goroutine.
type file struct {
	io.WriteCloser // what is written to it is encrypted, and goes to disk
	keeper         *Keeper
	on             *os.File
	sum            hash.Hash
	size           int64
}

// disk is the side of a file that what was encrypted leaves by.
type disk struct{ *file }

func (d disk) Write(p []byte) (int, error) {
	n, err := d.on.Write(p)
	d.sum.Write(p[:n])
	d.size += int64(n)
	d.keeper.used.Add(int64(n))
	return n, err
}

// create makes a file that was not there, for every recipient.
func (k *Keeper) create(path string) (*file, error) {
	on, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	f := &file{keeper: k, on: on, sum: sha256.New()}
	if f.WriteCloser, err = k.recipients.Writer(disk{f}); err != nil {
		return nil, errors.Join(err, f.remove())
	}
	return f, nil
}

// finish ends the file and says what it is. After an error the file stays as far as it came.
func (f *file) finish() (Mark, error) {
	err := f.WriteCloser.Close()
	if err == nil && f.keeper.sync {
		err = f.on.Sync()
	}
	if err = errors.Join(err, f.on.Close()); err == nil && f.keeper.sync {
		err = syncDir(filepath.Dir(f.on.Name()))
	}
	return Mark{hex.EncodeToString(f.sum.Sum(nil)), f.size}, err
}

// abandon closes a file that cannot be written any more.
func (f *file) abandon() { _ = f.on.Close() }

// remove takes back a file that nobody has been told of.
func (f *file) remove() error {
	f.abandon()
	f.keeper.used.Add(-f.size)
	return os.Remove(f.on.Name())
}

// syncDir makes a new file's name durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
