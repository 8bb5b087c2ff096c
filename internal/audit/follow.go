package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

const (
	followEvery = 200 * time.Millisecond // between two looks at the file's end
	followBlock = 64 << 10               // bytes read at once; more than a line
	maxLag      = 16 << 20               // bytes a follower may be behind before it is taken to the end
)

// Followed is what a follower gets: a record, or how many were left out because it
// was too slow, or because they are no longer there.
type Followed struct {
	Line    []byte // as it stands in the log, without its end; valid until f returns
	Dropped uint64
}

// Follow hands over the records behind number after that the query selects, those
// that are there and those that come, until ctx ends or f fails, which is its error.
// It reads the files for itself: however slow f is, it never delays the log.
func Follow(ctx context.Context, dir string, q Query, after uint64, f func(Followed) error) error {
	w := &follower{dir: dir, matcher: newMatcher(q), last: after, f: f}
	defer w.close()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		if err := w.catchUp(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// follower is the state of one Follow.
type follower struct {
	dir string
	*matcher
	last uint64 // number of the last record read
	f    func(Followed) error

	file    *os.File
	segment segmentName
	offset  int64 // of the first byte that has not been read
	block   [followBlock]byte
	aligned bool // offset is where a line begins
}

func (w *follower) close() {
	if w.file != nil {
		w.file.Close()
	}
	w.file = nil
}

// catchUp reads to the end of the last segment.
func (w *follower) catchUp(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		segments, err := listSegments(w.dir)
		if err != nil {
			return err
		}
		if len(segments) == 0 {
			return nil
		}
		if err := w.keepNear(segments); err != nil {
			return err
		}
		more, err := w.read()
		if err != nil {
			return err
		}
		if more {
			continue
		}
		// The list is older than the end just read: a segment in it that follows this
		// one was begun when nothing more was written here.
		next := nextSegment(segments, w.segment)
		if next == nil {
			return nil
		}
		if err := w.open(*next); err != nil {
			return err
		}
	}
}

func nextSegment(segments []segmentName, of segmentName) *segmentName {
	for i := range segments {
		if segments[i].first > of.first {
			return &segments[i]
		}
	}
	return nil
}

// keepNear opens the segment to begin with, and takes a follower that is too far
// behind to the end.
func (w *follower) keepNear(segments []segmentName) error {
	if w.file == nil {
		at := segments[0]
		for _, s := range segments {
			if s.first <= w.last+1 {
				at = s
			}
		}
		if err := w.open(at); err != nil {
			return err
		}
	}
	behind, size := -w.offset, int64(0)
	for _, s := range segments {
		if s.first < w.segment.first {
			continue
		}
		info, err := os.Stat(filepath.Join(w.dir, s.name))
		if err != nil {
			return fmt.Errorf("follow audit log: %w", err)
		}
		size = info.Size()
		behind += size
	}
	if behind <= maxLag {
		return nil
	}
	if newest := segments[len(segments)-1]; newest != w.segment {
		if err := w.open(newest); err != nil {
			return err
		}
	}
	if to := size - followBlock; to > w.offset {
		w.offset, w.aligned = to, false
	}
	return nil
}

func (w *follower) open(s segmentName) error {
	w.close()
	file, err := os.Open(filepath.Join(w.dir, s.name))
	if err != nil {
		return fmt.Errorf("follow audit log: %w", err)
	}
	w.file, w.segment, w.offset, w.aligned = file, s, 0, true
	return nil
}

// read hands over the whole lines of the next block; more says that there was one.
func (w *follower) read() (more bool, err error) {
	n, err := w.file.ReadAt(w.block[:], w.offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("follow audit log: %w", err)
	}
	data, begin := w.block[:n], w.offset
	for {
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			break
		}
		text := data[:end+1]
		data = data[end+1:]
		w.offset += int64(len(text))
		if !w.aligned { // the end of a line whose beginning was left out
			w.aligned = true
			continue
		}
		if err := w.line(text); err != nil {
			return false, err
		}
	}
	if w.offset == begin && n == followBlock { // longer than any record: skip it
		w.offset, w.aligned = w.offset+int64(n), false
	}
	return w.offset > begin, nil
}

// line hands one over if it is selected, and tells of a gap before it.
func (w *follower) line(text []byte) error {
	seq, at, err := head(text)
	if err != nil || seq <= w.last { // no record, or read before
		return nil
	}
	if w.last > 0 && seq > w.last+1 {
		if err := w.f(Followed{Dropped: seq - w.last - 1}); err != nil {
			return err
		}
	}
	w.last = seq
	if found, err := w.matches(text, at); err != nil || !found {
		return nil
	}
	return w.f(Followed{Line: bytes.TrimSuffix(text, []byte("\n"))})
}
