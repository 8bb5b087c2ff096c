package sink

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"iap/internal/audit"
)

const readBlock = 2 * audit.MaxLine // bytes read at once; more than a line

// record is one line of the log.
type record struct {
	seq   uint64
	line  []byte // as it stands in the file, without its newline
	event audit.Event
}

// reader reads the records of a log that is in use. It is one goroutine's.
type reader struct {
	dir string

	file    *os.File // nil: none is open
	first   uint64   // number of the first record in it
	offset  int64    // of the first byte that was not taken
	block   [readBlock]byte
	aligned bool // offset is where a line begins
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
	}
	r.file = nil
}

// next returns records behind number after, those that are there: at most so many, and so many bytes of them, but for the
// first. Lines that are no records are passed over: the numbers tell that something is missing.
func (r *reader) next(after uint64, most, mostBytes int) (all []record, err error) {
	for {
		if r.file == nil {
			if found, err := r.seek(after + 1); !found || err != nil {
				return all, err
			}
		}
		all, err = r.take(all, after, most, &mostBytes)
		if err != nil || len(all) >= most || mostBytes <= 0 {
			return all, err
		}
		next, err := r.following()
		if err != nil || next == nil {
			return all, err
		}
		// Once there is another segment, nothing more is written to this one: what is read now is its end.
		end := r.offset
		if all, err = r.take(all, after, most, &mostBytes); err != nil || r.offset > end {
			return all, err
		}
		if err := r.open(*next); err != nil {
			return all, err
		}
	}
}

// seek opens the segment that holds a record, or else the oldest that there is.
func (r *reader) seek(seq uint64) (found bool, err error) {
	segments, err := audit.Segments(r.dir)
	if err != nil || len(segments) == 0 {
		return false, err
	}
	at := segments[0]
	for _, s := range segments {
		if s.First <= seq {
			at = s
		}
	}
	return true, r.open(at)
}

// following is the segment after the one that is open; nil if there is none.
func (r *reader) following() (*audit.Segment, error) {
	segments, err := audit.Segments(r.dir)
	for i := range segments {
		if segments[i].First > r.first {
			return &segments[i], err
		}
	}
	return nil, err
}

func (r *reader) open(s audit.Segment) error {
	r.close()
	file, err := os.Open(filepath.Join(r.dir, s.Name))
	if err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	r.file, r.first, r.offset, r.aligned = file, s.First, 0, true
	return nil
}

// take adds the records up to the segment's end, or to one of the bounds.
func (r *reader) take(all []record, after uint64, most int, mostBytes *int) ([]record, error) {
	for {
		n, err := r.file.ReadAt(r.block[:], r.offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return all, fmt.Errorf("read audit log: %w", err)
		}
		data, begin := r.block[:n], r.offset
		for {
			end := bytes.IndexByte(data, '\n')
			if end < 0 {
				break
			}
			one, ok := r.parse(data[:end], after)
			if ok {
				if len(all) > 0 && (len(all) >= most || len(one.line) > *mostBytes) {
					*mostBytes = 0
					return all, nil
				}
				all = append(all, one)
				*mostBytes -= len(one.line)
			}
			r.aligned = true
			r.offset += int64(end + 1)
			data = data[end+1:]
		}
		if r.offset == begin {
			if n < readBlock {
				return all, nil
			}
			r.offset, r.aligned = r.offset+int64(n), false // longer than any record: skip it
		}
	}
}

// parse makes a record of a line that is wanted.
func (r *reader) parse(line []byte, after uint64) (record, bool) {
	if !r.aligned { // the end of a line whose beginning was too long
		return record{}, false
	}
	e, err := audit.Parse(line)
	if err != nil || e.Seq <= after {
		return record{}, false
	}
	return record{seq: e.Seq, line: bytes.Clone(line), event: e}, true
}
