package recording

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"iap/internal/sealed"
)

// maxFile bounds what is read of one file: a body in pieces of a byte each would be forty times as long.
const maxFile = 8 << 30

// The sides of a recording.
const (
	SideRequest = "request"
	SideAnswer  = "answer"
)

// Side is one file, opened.
type Side struct {
	Side     string              `json:"side"` // request or answer
	File     string              `json:"file"`
	SHA256   string              `json:"sha256"` // of the file as it is now
	Size     int64               `json:"size"`
	Request  string              `json:"request"` // its id
	Time     time.Time           `json:"time"`
	Resource string              `json:"resource,omitempty"`
	Action   string              `json:"action,omitempty"`
	Model    string              `json:"model,omitempty"`
	Grant    string              `json:"grant,omitempty"`
	Method   string              `json:"method,omitempty"`
	Path     string              `json:"path,omitempty"`
	Status   int                 `json:"status,omitempty"`
	Header   map[string][]string `json:"header,omitempty"`
	Body     []byte              `json:"-"`
	Of       int64               `json:"of"`    // bytes that passed
	Cut      bool                `json:"cut"`   // less is recorded than passed
	Ended    string              `json:"ended"` // of an answer: why; "" with Whole false
	Whole    bool                `json:"whole"` // its end is there
}

// Mark is what the audit log should hold of it.
func (s *Side) Mark() Mark { return Mark{s.SHA256, s.Size} }

// Errors of Open, besides those of files.
var (
	ErrNotForKey = errors.New("none of these keys opens it: it was encrypted to others")
	ErrNotAge    = errors.New("it is no file of age, or its first lines were changed or cut off")
	ErrDamaged   = errors.New("it was changed, or cut off")
)

// Open decrypts one file. One whose relay was killed before it was at its end is returned as far as it goes, with Whole
// false. Of a changed one, what stands before the change is returned beside the error.
func Open(path string, key sealed.Identities) (*Side, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, io.LimitReader(f, maxFile))
	if err != nil {
		return nil, err
	}
	if _, err = f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	plain, err := key.Reader(bufio.NewReader(f))
	switch {
	case errors.Is(err, sealed.ErrWrongKey):
		return nil, ErrNotForKey
	case err != nil:
		return nil, ErrNotAge
	}
	s := &Side{File: path, SHA256: hex.EncodeToString(sum.Sum(nil)), Size: size, Request: IDOf(path), Side: SideRequest}
	if strings.HasSuffix(path, answerSuffix) {
		s.Side = SideAnswer
	}
	return s, s.read(bufio.NewReader(plain))
}

// read takes the parts in their order.
func (s *Side) read(r *bufio.Reader) error {
	for n := 0; ; n++ {
		p, data, err := readPart(r, MaxBody-len(s.Body))
		switch {
		case errors.Is(err, errNoParts) || err != nil && !isCut(err):
			return damaged(err)
		case n == 0 && err != nil:
			return nil // nothing of it was written out before its relay was killed
		}
		if p.Part == partPiece || p.Part == partRequest {
			s.Body = append(s.Body, data...)
		}
		switch {
		case err != nil:
			if p.Part == partRequest {
				s.head(p)
			}
			return nil
		case n == 0 && (p.Part == partRequest || p.Part == partAnswer):
			s.head(p)
		case n == 0 && p.Part != partEnd:
			return errNoParts
		case p.Part == partCut:
			s.Cut = true
		case p.Part == partEnd:
			s.Ended, s.Of, s.Whole = p.Ended, p.Of, true
			if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
				return damaged(err)
			}
			return nil
		}
	}
}

func (s *Side) head(p part) {
	s.Side, s.Request, s.Resource, s.Action, s.Model, s.Grant = p.Part, p.ID, p.Resource, p.Action, p.Model, p.Grant
	s.Method, s.Path, s.Status, s.Header, s.Of = p.Method, p.Path, p.Status, p.Header, p.Of
	if p.Time != nil {
		s.Time = *p.Time
	}
}

// isCut says whether an error is that of a file that ends too early.
func isCut(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) }

func damaged(err error) error {
	if errors.Is(err, errNoParts) {
		return err
	}
	return ErrDamaged
}

// Find names the files of a request below a folder of recordings, the request's first. There may be only the first.
func Find(dir, id string) ([]string, error) {
	if !isID(id) {
		return nil, fmt.Errorf("%.80q is no id of a request", id)
	}
	days, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, day := range days {
		var found []string
		for _, suffix := range []string{requestSuffix, answerSuffix} {
			path := filepath.Join(dir, day.Name(), id+suffix)
			if _, err := os.Stat(path); err == nil {
				found = append(found, path)
			}
		}
		if len(found) > 0 {
			return found, nil
		}
	}
	return nil, fmt.Errorf("no recording of %s in %s: %w", id, dir, fs.ErrNotExist)
}

// IDOf is the request that a file is about by its name; "" for another name.
func IDOf(path string) string {
	name := filepath.Base(path)
	for _, suffix := range []string{requestSuffix, answerSuffix} {
		if id, ok := strings.CutSuffix(name, suffix); ok && isID(id) {
			return id
		}
	}
	return ""
}
