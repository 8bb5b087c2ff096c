package recording

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// version of the parts.
const version = 1

// The kinds of parts.
const (
	partRequest = "request"
	partAnswer  = "answer"
	partPiece   = "piece"
	partCut     = "cut"
	partEnd     = "end"
)

const (
	// maxPartHead bounds the line of a part: a path of 8 KiB, a few headers, names.
	maxPartHead = 64 << 10
	// MaxBody is the most that is recorded of one body, so that whoever opens a recording can hold it.
	MaxBody = 64 << 20
)

// part is the line of one.
type part struct {
	Part     string              `json:"part"`
	Version  int                 `json:"v,omitempty"`
	ID       string              `json:"id,omitempty"`
	Time     *time.Time          `json:"time,omitempty"`
	Resource string              `json:"resource,omitempty"`
	Action   string              `json:"action,omitempty"`
	Model    string              `json:"model,omitempty"`
	Grant    string              `json:"grant,omitempty"`
	Method   string              `json:"method,omitempty"`
	Path     string              `json:"path,omitempty"`
	Status   int                 `json:"status,omitempty"`
	Header   map[string][]string `json:"header,omitempty"`
	Ms       int64               `json:"ms,omitempty"`
	Ended    string              `json:"ended,omitempty"`
	Bytes    int                 `json:"bytes,omitempty"`
	Of       int64               `json:"of,omitempty"`
}

// writePart writes one part with its data.
func writePart(w io.Writer, p part, data []byte) error {
	p.Bytes = len(data)
	line, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if len(line) > maxPartHead {
		return errors.New("the head of a request is too long to be recorded")
	}
	if _, err = w.Write(append(line, '\n')); err != nil || len(data) == 0 {
		return err
	}
	if _, err = w.Write(data); err == nil {
		_, err = w.Write([]byte{'\n'})
	}
	return err
}

// errNoParts says that what was decrypted is none of ours.
var errNoParts = errors.New("it opens, but it is no recording of a relay")

// readPart reads one part; io.EOF where none follows. The data is at most most bytes.
func readPart(r *bufio.Reader, most int) (part, []byte, error) {
	var p part
	line, err := readLine(r)
	if err != nil {
		return p, nil, err
	}
	if json.Unmarshal(line, &p) != nil || p.Part == "" || p.Bytes < 0 {
		return p, nil, errNoParts
	}
	if p.Version > version {
		return p, nil, fmt.Errorf("it is of version %d, which this program does not know: use a newer one", p.Version)
	}
	if p.Bytes == 0 {
		return p, nil, nil
	}
	if p.Bytes > most {
		return p, nil, errNoParts
	}
	data, err := io.ReadAll(io.LimitReader(r, int64(p.Bytes)+1)) // what is there, not what is promised
	switch {
	case err != nil:
		return p, data[:min(len(data), p.Bytes)], err
	case len(data) != p.Bytes+1 || data[p.Bytes] != '\n':
		return p, data[:min(len(data), p.Bytes)], io.ErrUnexpectedEOF
	}
	return p, data[:p.Bytes], nil
}

func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		more, err := r.ReadSlice('\n')
		line = append(line, more...)
		switch {
		case len(line) > maxPartHead+1:
			return nil, errNoParts
		case err == nil:
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}
