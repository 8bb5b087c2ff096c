package audit

import (
	"bytes"
	"context"
	"io"
	"time"
)

const (
	backBlock = 64 << 10 // bytes read at once towards the beginning
	lookEvery = 256      // lines between two looks at the context
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
	way := walk{dir: dir, since: q.Since, until: q.Until, newest: b.Newest, after: b.After}
	for text, err := range way.lines(s.left) {
		if err != nil {
			return Page{}, err
		}
		if !s.take(text) {
			return s.page, ctx.Err()
		}
	}
	if !s.page.Partial {
		s.page.Next = 0
	}
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

// left goes on behind a segment, if there is time.
func (s *searcher) left(next uint64) bool {
	s.page.Next, s.page.Partial = next, s.ctx.Err() != nil
	return !s.page.Partial
}

// take looks at one line; false ends the search.
func (s *searcher) take(text []byte) bool {
	if s.looked++; s.looked%lookEvery == 0 && s.ctx.Err() != nil {
		s.page.Partial = true
		return false
	}
	seq, found, err := s.judge(text, s.bounds.Newest, s.bounds.After)
	if err != nil {
		s.page.Unread++
	}
	if seq == 0 {
		return true
	}
	text = bytes.TrimSuffix(text, []byte("\n"))
	if found && s.bytes+len(text) > s.bounds.Bytes {
		s.page.Partial = true
		return false
	}
	s.page.Next = seq
	if found {
		s.page.Lines = append(s.page.Lines, bytes.Clone(text))
		s.bytes += len(text)
	}
	return len(s.page.Lines) < s.bounds.Limit
}

// Way is how a scan goes through a log.
type Way struct {
	Newest bool   // the newest first
	After  uint64 // only what follows this record in that order; 0: from the beginning of it
	// Thorough reads every segment. Otherwise one whose first and whose last record
	// lie more than ten minutes before, or behind, the time asked for is left out:
	// that is wrong only if the clock stood wrong for a while within it.
	Thorough bool
}

// Scan hands each record over that the query selects, as it stands in the log,
// valid until f returns, until f fails, which is Scan's error. It holds a few lines
// at a time, reads no further than f has come, and counts lines that are no records.
func Scan(ctx context.Context, dir string, q Query, way Way, f func(seq uint64, line []byte) error) (unread int, err error) {
	m, looked := newMatcher(q), 0
	w := walk{dir: dir, since: q.Since, until: q.Until, newest: way.Newest, after: way.After, thorough: way.Thorough}
	for text, err := range w.lines(func(uint64) bool { return ctx.Err() == nil }) {
		if err != nil {
			return unread, err
		}
		if looked++; looked%lookEvery == 0 && ctx.Err() != nil {
			break
		}
		seq, found, err := m.judge(text, way.Newest, way.After)
		if err != nil {
			unread++
		}
		if !found {
			continue
		}
		if err := f(seq, bytes.TrimSuffix(text, []byte("\n"))); err != nil {
			return unread, err
		}
	}
	return unread, ctx.Err()
}

// judge tells a line's number, 0 if it lies before what follows after or is no
// record, and whether the query selects it.
func (m *matcher) judge(text []byte, newest bool, after uint64) (seq uint64, found bool, err error) {
	if text == nil {
		return 0, false, ErrTooLong
	}
	seq, at, err := head(text)
	if err != nil || after > 0 && (newest && seq >= after || !newest && seq <= after) {
		return 0, false, err
	}
	found, err = m.matches(text, at)
	return seq, found, err
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
		return nil, readError(err)
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
