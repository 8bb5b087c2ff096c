// Package diag writes what somebody may send with a report of a fault: a zip
// without secrets. It exists so that nobody sends a whole configuration folder
// instead. What goes in is chosen by its callers, file by file, and every byte of
// it passes the Redactor: twice careful, since what is sent cannot be called back.
package diag

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

const (
	// maxFile is what of one file goes in: the end of a log is what matters.
	maxFile = 256 << 10
	// maxBundle bounds all of it, so that it fits any ticket.
	maxBundle = 2 << 20
)

// File is one file of a bundle.
type File struct {
	Name string
	What string // a few words for who looks whether to send it
	Data []byte
}

// Bundle gathers files. Its zero value has no redactor and takes nothing.
type Bundle struct {
	Redact *Redactor
	Now    time.Time
	files  []File
	size   int
}

// Files are those that are in it.
func (b *Bundle) Files() []File { return b.files }

// Add puts a file in: the end of it, if it is long. Text that is no secret of ours but looks like one goes, too.
func (b *Bundle) Add(name, what string, data []byte) {
	if b.Redact == nil {
		return
	}
	whole := len(data) <= maxFile
	if !whole {
		data = wholeLines(data[len(data)-maxFile:])
	}
	if b.size+len(data) > maxBundle {
		data = []byte("left out: the bundle is full\n")
	}
	data = b.Redact.Bytes(data)
	if !whole {
		data = append([]byte("… the beginning is left out\n"), data...)
	}
	b.size += len(data)
	b.files = append(b.files, File{name, what, data})
}

// AddLog puts the end of a file on disk in. One that is not there is passed over.
func (b *Bundle) AddLog(name, what, path string) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		b.Add(name, what, []byte(err.Error()+"\n"))
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	begin := max(0, info.Size()-maxFile)
	data, err := io.ReadAll(io.NewSectionReader(f, begin, maxFile))
	if err != nil {
		data = []byte(err.Error() + "\n")
	}
	if begin > 0 {
		data = wholeLines(data)
	}
	b.Add(name, what, data)
}

// wholeLines leaves out a first line that was cut: half a secret is not
// recognised.
func wholeLines(data []byte) []byte {
	if line := bytes.IndexByte(data, '\n'); line >= 0 {
		return data[line+1:]
	}
	return nil
}

// Write makes the zip: a new file of mode 0600, never in the place of another.
func (b *Bundle) Write(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			_ = os.Remove(path) // half a bundle tells nothing
			err = fmt.Errorf("write bundle %s: %w", path, err)
		}
	}()
	z := zip.NewWriter(f)
	for _, one := range b.files {
		w, err := z.CreateHeader(&zip.FileHeader{Name: one.Name, Method: zip.Deflate, Modified: b.Now})
		if err != nil {
			return err
		}
		if _, err := w.Write(one.Data); err != nil {
			return err
		}
	}
	return z.Close()
}
