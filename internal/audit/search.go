package audit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	// clockSlack is how far records may stand out of the order of their times: a
	// clock that was set back, an event that was given its own time.
	clockSlack = 10 * time.Minute
	backBlock  = 64 << 10 // bytes read at once towards the beginning
	lookEvery  = 256      // lines between two looks at the context
)

// Page is a part of the answer to a search.
type Page struct {
	Lines   [][]byte // records as they stand in the log, without their ends
	Next    uint64   // to go on behind; 0: there is nothing more
	Partial bool     // the search ended at a bound, and not because the page is full
	Unread  int      // lines that are no records
}

// Bounds bound one search, which ends where the first of them is reached.
type Bounds struct {
	Newest bool          // the newest first
	After  uint64        // only what follows this record in the order asked for; 0: from the beginning of it
	Limit  int           // records
	Bytes  int           // of records
	Within time.Duration // time to look
}

// Search looks through the log in dir, which may be in use, holding a few lines at
// a time. An error is ctx's or of reading a file.
func Search(ctx context.Context, dir string, q Query, b Bounds) (Page, error) {
	timed, cancel := context.WithTimeout(ctx, b.Within)
	defer cancel()
	s := searcher{ctx: timed, matcher: newMatcher(q), bounds: b, page: Page{Next: b.After}}
	segments, err := listSegments(dir)
	if err != nil {
		return Page{}, err
	}
	if b.Newest {
		slices.Reverse(segments)
	}
	for i, one := range segments {
		if !s.wanted(segments, i, dir) {
			continue
		}
		read := forward
		if b.Newest {
			read = backward
		}
		for text, err := range read(filepath.Join(dir, one.name)) {
			if err != nil {
				return Page{}, err
			}
			if !s.take(text) {
				return s.page, ctx.Err()
			}
		}
	}
	s.page.Next = 0
	return s.page, ctx.Err()
}

// searcher is the state of one search.
type searcher struct {
	ctx context.Context
	*matcher
	bounds Bounds
	page   Page
	bytes  int
	looked int
}

// wanted says whether the segment can hold anything that is asked for.
func (s *searcher) wanted(segments []segmentName, i int, dir string) bool {
	b := s.bounds
	if b.Newest {
		return b.After == 0 || segments[i].first < b.After
	}
	last := i+1 == len(segments)
	if !last && b.After > 0 && segments[i+1].first <= b.After+1 {
		return false
	}
	if last || s.query.Since.IsZero() {
		return true
	}
	next := firstTime(filepath.Join(dir, segments[i+1].name))
	return next.IsZero() || next.After(s.query.Since.Add(-clockSlack))
}

// take looks at one line; false ends the search.
func (s *searcher) take(text []byte) bool {
	if s.looked++; s.looked%lookEvery == 0 && s.ctx.Err() != nil {
		s.page.Partial = true
		return false
	}
	if text == nil {
		s.page.Unread++
		return true
	}
	seq, at, err := head(text)
	b := s.bounds
	switch {
	case err != nil:
		s.page.Unread++
		return true
	case b.After > 0 && (b.Newest && seq >= b.After || !b.Newest && seq <= b.After):
		return true
	case b.Newest && !s.query.Since.IsZero() && at.Before(s.query.Since.Add(-clockSlack)),
		!b.Newest && !s.query.Until.IsZero() && at.After(s.query.Until.Add(clockSlack)):
		s.page.Next = 0 // what follows is out of the range as well
		return false
	}
	found, err := s.matches(text, at)
	if err != nil {
		s.page.Unread++
	}
	text = bytes.TrimSuffix(text, []byte("\n"))
	if found && s.bytes+len(text) > b.Bytes {
		s.page.Partial = true
		return false
	}
	s.page.Next = seq
	if found {
		s.page.Lines = append(s.page.Lines, bytes.Clone(text))
		s.bytes += len(text)
	}
	return len(s.page.Lines) < b.Limit
}

// forward iterates over the lines of one file, oldest first. A line that is too
// long is nil, one at the end that is not finished is left out. A line is valid
// until the next.
func forward(path string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield(nil, fmt.Errorf("read audit log: %w", err))
			return
		}
		defer f.Close()
		r := bufio.NewReaderSize(f, MaxLine)
		for {
			text, err := readLine(r)
			switch {
			case err == io.EOF || errors.Is(err, ErrTorn):
				return
			case errors.Is(err, ErrTooLong):
				text, err = nil, nil
			}
			if !yield(text, err) || err != nil {
				return
			}
		}
	}
}

// backward is forward from the end.
func backward(path string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield(nil, fmt.Errorf("read audit log: %w", err))
			return
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			yield(nil, fmt.Errorf("read audit log: %w", err))
			return
		}
		b := backwards{file: f, at: info.Size(), unfinished: true}
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

// backwards reads a file from its end, a block at a time.
type backwards struct {
	file       io.ReaderAt
	at         int64  // everything from here has been read
	rest       []byte // the end of a line whose beginning has not
	long       bool   // that line is too long, and rest is not kept
	unfinished bool   // no line's end has been seen yet
}

// block returns the lines that end in the block before those returned so far, the
// last first.
func (b *backwards) block() ([][]byte, error) {
	n := min(b.at, backBlock)
	b.at -= n
	data := make([]byte, n, int(n)+len(b.rest))
	if _, err := b.file.ReadAt(data, b.at); err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	data = append(data, b.rest...)
	var lines [][]byte
	if b.unfinished { // leave out what stands behind the last line's end
		end := bytes.LastIndexByte(data, '\n')
		if end < 0 {
			return nil, nil
		}
		data, b.unfinished = data[:end+1], false
	}
	for {
		begin := bytes.LastIndexByte(data[:max(0, len(data)-1)], '\n') + 1
		if b.long { // data ends in the middle of the long line
			begin = bytes.LastIndexByte(data, '\n') + 1
		}
		if begin == 0 && b.at > 0 {
			break
		}
		lines, b.long = append(lines, b.line(data[begin:])), false
		if data = data[:begin]; begin == 0 {
			break
		}
	}
	if b.rest = bytes.Clone(data); len(b.rest) > MaxLine {
		b.rest, b.long = nil, true
	}
	return lines, nil
}

func (b *backwards) line(text []byte) []byte {
	if b.long || len(text) > MaxLine {
		return nil
	}
	return text
}
