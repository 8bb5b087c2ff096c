package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/go-json-experiment/json"
)

// Reasons why a line is no event.
var (
	ErrTorn    = errors.New("line is not finished")
	ErrTooLong = errors.New("line is too long")
	ErrVersion = errors.New("line has a schema version this program does not know")
)

// LineError is one line that could not be read. Reading goes on behind it.
type LineError struct {
	File string
	Line int64 // counted from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

// Read iterates over the events of the log in dir, oldest first, holding one line at a time. A line that cannot be read
// is reported as a *LineError and the iteration goes on; after any other error it ends. The log may be in use: then an
// ErrTorn at the very end is a record being written.
func Read(dir string) iter.Seq2[Event, error] { return ReadFrom(dir, 0) }

// ReadFrom is Read without the segments that end before seq; a few events before seq may still be given.
func ReadFrom(dir string, seq uint64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		segments, err := listSegments(dir)
		if err != nil {
			yield(Event{}, err)
			return
		}
		for i, s := range segments {
			if i+1 < len(segments) && segments[i+1].first <= seq {
				continue
			}
			for e, err := range readSegment(filepath.Join(dir, s.name)) {
				if !yield(e, err) {
					return
				}
			}
		}
	}
}

// ReadSince is Read without the segments that end before the time at; events before it may still be given.
func ReadSince(dir string, at time.Time) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		segments, err := listSegments(dir)
		if err != nil {
			yield(Event{}, err)
			return
		}
		from := 0
		for i := len(segments) - 1; i > 0 && from == 0; i-- {
			if begins := firstTime(filepath.Join(dir, segments[i].name)); !begins.IsZero() && !begins.After(at) {
				from = i
			}
		}
		for _, s := range segments[from:] {
			for e, err := range readSegment(filepath.Join(dir, s.name)) {
				if !yield(e, err) {
					return
				}
			}
		}
	}
}

// firstTime is when a segment's first readable event was; zero if there is none.
func firstTime(path string) time.Time {
	for e, err := range readSegment(path) {
		if err == nil {
			return e.Time
		}
		var bad *LineError
		if !errors.As(err, &bad) {
			break
		}
	}
	return time.Time{}
}

// readSegment iterates over one file.
func readSegment(path string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		file, err := os.Open(path)
		if err != nil {
			yield(Event{}, readError(err))
			return
		}
		defer file.Close()
		r := bufio.NewReaderSize(file, MaxLine)
		for number := int64(1); ; number++ {
			text, err := readLine(r)
			if err == io.EOF {
				return
			}
			var e Event
			if err == nil {
				e, err = parse(text)
			}
			if err != nil {
				err = &LineError{File: path, Line: number, Err: err}
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func readError(err error) error { return fmt.Errorf("read audit log: %w", err) }

// readLine returns the next line, which is valid until the next call; a longer one than MaxLine is skipped.
func readLine(r *bufio.Reader) ([]byte, error) {
	text, err := r.ReadSlice('\n')
	if err == nil {
		return text, nil
	}
	long := false
	for errors.Is(err, bufio.ErrBufferFull) {
		long = true
		_, err = r.ReadSlice('\n')
	}
	switch {
	case long && (err == nil || err == io.EOF):
		return nil, ErrTooLong
	case err == io.EOF && len(text) > 0:
		return nil, ErrTorn
	}
	return nil, err
}

// parse reads one line. Unknown fields are ignored, so that old programs read new logs of the same schema version;
// duplicate names and invalid UTF-8 are refused.
func parse(text []byte) (Event, error) {
	var record struct {
		V int `json:"v"`
		Event
	}
	if err := json.Unmarshal(text, &record); err != nil {
		return Event{}, err
	}
	if record.V != schemaVersion {
		return Event{}, ErrVersion
	}
	return record.Event, nil
}
