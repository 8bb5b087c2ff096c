package verify

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"iap/internal/audit"
	"iap/internal/audit/checkpoint"
	"iap/internal/audit/tree"
)

const lookEvery = 1024 // lines between two looks at the context

// segment verifies one file and what stands beside it.
func (v *verifier) segment(ctx context.Context, s audit.Segment, last bool) error {
	f, err := os.Open(filepath.Join(v.dir, s.Name))
	if err != nil {
		return err
	}
	defer f.Close()
	v.r.Segments++
	v.file, v.line = s.Name, 0
	if !v.started {
		v.started, v.r.First = true, s.First
		v.agreed = Problem{File: s.Name, Line: 1, Record: s.First}
	}
	if s.First != v.number+1 {
		v.wrong(Problem{Kind: Missing, File: s.Name, Message: gap(v.number, s.First)})
		if s.First > v.number {
			v.number, v.lost = s.First-1, true
		}
	}
	hashes, err := v.openHashes(s)
	if err != nil {
		return err
	}
	defer hashes.close()
	points, err := openPoints(filepath.Join(v.dir, s.Name+audit.CheckpointSuffix))
	if err != nil {
		return err
	}
	defer points.close()
	if err := v.read(ctx, bufio.NewReaderSize(f, audit.MaxLine), hashes, points, last); err != nil {
		return err
	}
	v.hashesEnd(hashes, last)
	v.pointsEnd(points)
	return nil
}

func gap(before, next uint64) string {
	if next > before {
		return fmt.Sprintf("the records %d to %d are not there: a segment was removed", before+1, next-1)
	}
	return fmt.Sprintf("it begins with record %d, which was read before", next)
}

// read goes through the lines.
func (v *verifier) read(ctx context.Context, r *bufio.Reader, hashes *hashFile, points *points, last bool) error {
	var feed tree.Lines
	for {
		if v.line%lookEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		text, long, err := nextLine(r, &feed, func(leaf tree.Hash) { v.add(leaf, hashes) })
		switch {
		case errors.Is(err, io.EOF) && text == nil:
			return nil
		case errors.Is(err, io.EOF):
			v.unfinished(len(text), last)
			return nil
		case err != nil:
			return fmt.Errorf("read %s: %w", v.file, err)
		}
		v.record(text, long)
		if err := v.points(points); err != nil {
			return err
		}
		v.meet()
	}
}

// nextLine reads one line and hashes it, whatever its length; a text is only given of one that is not too long. With
// io.EOF it is what stands behind the last newline, if anything does.
func nextLine(r *bufio.Reader, feed *tree.Lines, add func(tree.Hash)) (text []byte, long bool, err error) {
	for {
		text, err = r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			long = true
			feed.Feed(text, nil)
			continue
		case errors.Is(err, io.EOF) && len(text) == 0 && !long:
			return nil, false, io.EOF
		case err != nil:
			return text, long, err
		}
		feed.Feed(text, func(leaf tree.Hash, _ int) { add(leaf) })
		return text, long, nil
	}
}

func (v *verifier) unfinished(bytes int, last bool) {
	if last {
		v.r.note("%s ends in %d bytes that are no whole line: a record being written, or one that a killed relay left", v.file, bytes)
		return
	}
	v.wrong(Problem{Kind: BadLine, File: v.file, Line: v.line + 1, Record: v.number + 1, Message: "the last line is not finished"})
}

// add puts a line into the tree and holds it against its hashes.
func (v *verifier) add(leaf tree.Hash, hashes *hashFile) {
	made := v.lines.Add(leaf, hashes.made[:0])
	hashes.made = made
	there := hashes.next(len(made))
	if v.other != nil && there != nil {
		v.other.Add(there[0], nil)
	}
	switch {
	case there == nil:
		if v.other != nil {
			v.other.Add(leaf, nil)
		}
	case v.other == nil && !v.lost && there[0] != leaf:
		v.suspect = Problem{Kind: Changed, File: v.file, Line: v.line + 1, Record: v.number + 1, Message: "the line is not the one whose hash was kept"}
		v.other = hashes.before.Clone()
		v.other.Add(there[0], nil)
	case v.other == nil && !v.lost && !equal(there, made):
		v.wrong(Problem{Kind: BadHashes, File: v.file + audit.HashSuffix, Record: v.number + 1, Message: "a hash over this record is not the one of its lines"})
		hashes.quiet()
	}
	hashes.before.Add(leaf, nil)
}

func equal(a, b []tree.Hash) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// record reads a line as a record and checks its number.
func (v *verifier) record(text []byte, long bool) {
	v.line++
	e, err := audit.Parse(text)
	if long {
		err = audit.ErrTooLong
	}
	switch {
	case err != nil:
		v.wrong(Problem{Kind: BadLine, File: v.file, Line: v.line, Record: v.number + 1, Message: "the line is no record: " + err.Error()})
		v.number++
	case e.Seq != v.number+1:
		v.wrong(Problem{Kind: BadNumber, File: v.file, Line: v.line, Record: e.Seq, Message: fmt.Sprintf("record %d stands where %d should: records were removed, added or moved", e.Seq, v.number+1)})
		v.number = e.Seq
	default:
		v.number = e.Seq
	}
}

// hashFile is read in step with its segment.
type hashFile struct {
	f      *os.File // nil: there is none
	r      *bufio.Reader
	name   string
	buf    []tree.Hash
	made   []tree.Hash // reused
	before *tree.Range // of the lines before the one being read
	short  bool        // it has ended before its segment
	mute   bool        // it was found to be wrong
}

func (v *verifier) openHashes(s audit.Segment) (*hashFile, error) {
	h := &hashFile{name: s.Name + audit.HashSuffix, before: v.lines.Clone()}
	f, err := os.Open(filepath.Join(v.dir, h.name))
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return nil, err
	}
	h.f, h.r = f, bufio.NewReaderSize(f, 64<<10)
	head := make([]byte, tree.HeadSize)
	n, err := io.ReadFull(h.r, head)
	first, ok := tree.ParseHead(head)
	switch {
	case n < len(head) && (err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF)):
		h.short = true
	case err != nil:
		return nil, errors.Join(err, f.Close())
	case !ok || first != v.lines.Size() && !v.lost:
		v.wrong(Problem{Kind: BadHashes, File: h.name, Message: "the file does not begin as the hashes of this segment"})
		h.quiet()
	}
	return h, nil
}

// next returns the hashes that one line has made; nil: they are not there.
func (h *hashFile) next(n int) []tree.Hash {
	if h.f == nil || h.short || h.mute {
		return nil
	}
	h.buf = h.buf[:0]
	for range n {
		var one tree.Hash
		if _, err := io.ReadFull(h.r, one[:]); err != nil {
			h.short = true
			return nil
		}
		h.buf = append(h.buf, one)
	}
	return h.buf
}

func (h *hashFile) quiet() { h.mute = true }

func (h *hashFile) close() {
	if h.f != nil {
		h.f.Close()
	}
}

// hashesEnd finds a hash file that is shorter or longer than its segment.
func (v *verifier) hashesEnd(h *hashFile, last bool) {
	switch {
	case h.f == nil:
		v.r.note("%s is not there: its hashes were computed from the lines", h.name)
	case h.mute:
	case h.short && last:
		v.r.note("%s does not reach the last line: the relay writes it a few seconds later", h.name)
	case h.short:
		v.wrong(Problem{Kind: BadHashes, File: h.name, Message: "it ends before its segment does"})
	default:
		if _, err := h.r.ReadByte(); err == nil {
			v.wrong(Problem{Kind: Missing, File: v.file, Line: v.line + 1, Record: v.number + 1, Message: "there are hashes of more lines: lines were removed from the end"})
		}
	}
}

// points is the checkpoints of a segment, read in step with it.
type points struct {
	f    *os.File // nil: there are none
	r    *bufio.Reader
	name string
	line int64
	next []byte // the note that comes; nil: none
	size int64  // of it
	bad  string // why reading has ended
}

func openPoints(path string) (*points, error) {
	p := &points{name: filepath.Base(path)}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	p.f, p.r = f, bufio.NewReaderSize(f, 2*checkpoint.MaxNote)
	p.advance()
	return p, nil
}

// advance reads the next note.
func (p *points) advance() {
	p.next = nil
	line, err := p.r.ReadSlice('\n')
	p.line++
	switch {
	case err == io.EOF && len(line) == 0:
		return
	case err == io.EOF && !bytes.ContainsRune(line, '}'):
		return // a killed relay was writing it
	case err != nil:
		p.bad = checkpoint.ErrMalformed.Error()
		return
	}
	note, err := audit.DecodeCheckpoint(line)
	if err == nil {
		var c checkpoint.Checkpoint
		c, err = checkpoint.Parse(note)
		p.size = c.Size
	}
	if err != nil {
		p.bad = err.Error()
		return
	}
	p.next = note
}

func (p *points) close() {
	if p.f != nil {
		p.f.Close()
	}
}
