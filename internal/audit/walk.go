package audit

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"
)

// clockSlack is how far the clock may have been set back or forth within a segment
// that is left out because both of its ends lie outside the time asked for.
const clockSlack = 10 * time.Minute

// walk is a way through a log: which segments are read, from which place, in which
// direction. Numbers rise whatever the clock does, so a place is found by them;
// times only say which segments cannot hold what is asked for.
type walk struct {
	dir          string
	since, until time.Time
	newest       bool   // the newest first
	after        uint64 // only what follows this record in that order; 0: from the beginning of it
	thorough     bool   // no segment is left out for its times
}

// lines hands over the lines of all segments that may hold what is asked for. A line
// that is too long is nil; one is valid until the next. left is told of each segment
// that was left out for its times, by the record to go on behind, and ends the walk
// with false. What retention takes away meanwhile is passed over.
func (w walk) lines(left func(next uint64) bool) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		segments, err := listSegments(w.dir)
		if err != nil {
			yield(nil, err)
			return
		}
		for n := range segments {
			i := n
			if w.newest {
				i = len(segments) - 1 - n
			}
			if w.passed(segments, i) {
				continue
			}
			path := filepath.Join(w.dir, segments[i].name)
			switch {
			case w.thorough || !w.outside(path):
				if !w.segment(path, yield) {
					return
				}
			case w.newest && !left(segments[i].first), !w.newest && i+1 < len(segments) && !left(segments[i+1].first-1):
				return
			}
		}
	}
}

// passed says whether the walk goes on behind the segment.
func (w walk) passed(segments []segmentName, i int) bool {
	switch {
	case w.after == 0:
		return false
	case w.newest:
		return segments[i].first >= w.after
	default:
		return i+1 < len(segments) && segments[i+1].first <= w.after+1
	}
}

// outside says whether the first and the last record of a segment both lie before,
// or both behind, what is asked for.
func (w walk) outside(path string) bool {
	if w.since.IsZero() && w.until.IsZero() {
		return false
	}
	first, last := firstTime(path), lastTime(path)
	if first.IsZero() || last.IsZero() {
		return false
	}
	if first.After(last) {
		first, last = last, first
	}
	return !w.since.IsZero() && last.Add(clockSlack).Before(w.since) || !w.until.IsZero() && !first.Add(-clockSlack).Before(w.until)
}

// segment hands over the lines of one, from where the walk goes on; false ends it.
func (w walk) segment(path string, yield func([]byte, error) bool) bool {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	if err != nil {
		return yield(nil, readError(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return yield(nil, readError(err))
	}
	from, to := int64(0), info.Size()
	switch {
	case w.after == 0:
	case w.newest:
		_, to = placeOf(f, to, w.after-1)
	default:
		from, _ = placeOf(f, to, w.after)
	}
	read := forward(f, from)
	if w.newest {
		read = backward(f, to)
	}
	for text, err := range read {
		if !yield(text, err) || err != nil {
			return false
		}
	}
	return true
}

// placeOf finds where the lines behind record seq begin in a file of size bytes:
// no line that begins before low has a higher number, none that begins at high or
// behind it has that number or a lower one. Where lines are no records it stays
// with what it knows; how many there are between the two does not grow with the file.
func placeOf(f io.ReaderAt, size int64, seq uint64) (low, high int64) {
	high = size
	block := make([]byte, 2*MaxLine)
	for beyond := high; beyond-low > 2*backBlock; {
		mid := low + (beyond-low)/2
		at, text := lineBehind(f, mid, block)
		number, _, err := head(text)
		switch {
		case text == nil || err != nil:
			return low, high
		case number <= seq:
			low = at
		default:
			high, beyond = at, mid
		}
	}
	return low, high
}

// lineBehind is the first whole line that begins behind the byte at.
func lineBehind(f io.ReaderAt, at int64, block []byte) (begin int64, text []byte) {
	n, err := f.ReadAt(block, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, nil
	}
	skip := bytes.IndexByte(block[:n], '\n') + 1
	length := bytes.IndexByte(block[skip:n], '\n') + 1
	if skip == 0 || length == 0 {
		return 0, nil
	}
	return at + int64(skip), block[skip : skip+length]
}

// lastTime is when a segment's last readable event was; zero if there is none in
// its last block, or if it cannot be read.
func lastTime(path string) time.Time {
	f, err := os.Open(path)
	if err != nil {
		return time.Time{}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return time.Time{}
	}
	looked := 0
	for text, err := range backward(f, info.Size()) {
		if looked++; err != nil || looked > lookEvery {
			break
		}
		if _, at, err := head(text); err == nil {
			return at
		}
	}
	return time.Time{}
}

// forward iterates over the lines of a file from the byte at on, oldest first. A
// line that is too long is nil, one at the end that is not finished is left out. A
// line is valid until the next.
func forward(f io.ReaderAt, at int64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		r := bufio.NewReaderSize(io.NewSectionReader(f, at, 1<<62), MaxLine)
		for {
			text, err := readLine(r)
			switch {
			case err == io.EOF || errors.Is(err, ErrTorn):
				return
			case errors.Is(err, ErrTooLong):
				text, err = nil, nil
			case err != nil:
				err = readError(err)
			}
			if !yield(text, err) || err != nil {
				return
			}
		}
	}
}

// backward is forward from the end, which is where a line ends, or the file's.
func backward(f io.ReaderAt, end int64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		b := backwards{file: f, at: end, unfinished: true}
		for b.at > 0 {
			lines, err := b.block()
			if err != nil {
				yield(nil, err)
				return
			}
			for _, text := range lines {
				if !yield(text, nil) {
					return
				}
			}
		}
	}
}
