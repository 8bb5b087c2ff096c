package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"iap/internal/audit/checkpoint"
	"iap/internal/audit/tree"
)

const (
	hashBlock = 256 << 10 // bytes of a segment read at once
	patience  = 8         // segments that Close waits for to be read: half a gigabyte, a second
)

var errInterrupted = errors.New("the log is being closed")

// place is where the tree is in the files.
type place struct {
	segment segmentName
	offset  int64 // of the first byte that is not in the tree
	lines   int64 // of the segment in the tree
	first   int64 // lines before the segment
	trusted int64 // of so many lines of the log the hashes on the disk are under a checkpoint: they are compared, not written
}

// takeUp finds the tree that the last run left: from the hash files where they are whole, and from the lines where not.
// The last segment's hashes are always computed, since a killed relay may not have written them.
func (p *prover) takeUp() error {
	if err := p.readBeside(); err != nil {
		return err
	}
	expired, before, ok, err := ReadExpired(p.l.dir)
	if err != nil {
		return err
	}
	segments, err := listSegments(p.l.dir)
	if err != nil {
		return err
	}
	for ok && len(segments) > 1 && segments[0].first <= expired.Through { // the relay was killed while it deleted them
		segments = segments[1:]
	}
	if err := p.build(before, segments, false); err == nil {
		return nil
	} else if errors.Is(err, errInterrupted) {
		return err
	}
	return p.build(before, segments, true)
}

// readBeside reads the last checkpoint and the keys.
func (p *prover) readBeside() error {
	var err error
	if p.known, _, err = ReadKeys(p.l.dir); err != nil {
		return err
	}
	note, err := lastCheckpoint(p.l.dir)
	if err != nil || note == nil {
		return err
	}
	key, chain, err := p.keys()
	if err != nil {
		return fmt.Errorf("the relay's key: %w", err)
	}
	if err := p.keepKeys(publicKey(key), chain); err != nil {
		return err
	}
	trusted, err := checkpoint.Follow([]checkpoint.Anchor{checkpoint.AnchorOf(publicKey(key))}, p.known)
	if err != nil {
		return err
	}
	signed, err := checkpoint.Open(note, trusted)
	if err != nil {
		return fmt.Errorf("the last checkpoint in %s: %w", p.l.dir, err)
	}
	if signed.Origin != p.origin {
		p.l.log.Warn("the audit log keeps the name that it was begun with", "name", signed.Origin, "configured", p.origin)
		p.origin = signed.Origin
	}
	p.mu.Lock()
	p.latest = &signed
	p.mu.Unlock()
	return nil
}

// build makes the tree; anew from every line if asked to. What a checkpoint covers and is not as it was is an error.
func (p *prover) build(before *tree.Range, segments []segmentName, anew bool) error {
	if len(segments) == 0 {
		return errors.New("there is no segment")
	}
	store, from := tree.NewStore(before), 0
	for ; !anew && from+1 < len(segments); from++ {
		// The next file's head is written when all lines of this segment have their hashes.
		lines, err := tree.FileLines(p.hashPath(segments[from]), store.Size(), false)
		next, known := tree.FileFirst(p.hashPath(segments[from+1]))
		if err != nil || !known || next != store.Size()+lines {
			break
		}
		store.Put(p.hashPath(segments[from]), lines)
	}
	at, err := store.RangeAt(store.Size())
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.store = store
	latest := p.latest
	p.mu.Unlock()
	p.long = len(segments)-from > patience
	defer func() { p.long = false }()
	p.tree, p.place = at, place{segment: segments[from], first: at.Size()}
	if latest != nil {
		p.place.trusted = latest.Size
	}
	if err := p.advance(); err != nil {
		return err
	}
	p.place.trusted = 0
	if latest == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if latest.Size > p.tree.Size() {
		return fmt.Errorf("%w (it has %d lines, the checkpoint %d)", ErrTree, p.tree.Size(), latest.Size)
	}
	if then, err := store.RangeAt(latest.Size); err != nil || then.Root() != latest.Root {
		return errors.Join(ErrTree, err)
	}
	return nil
}

func (p *prover) hashPath(s segmentName) string { return filepath.Join(p.l.dir, s.name+HashSuffix) }

// advance adds the lines that were written since.
func (p *prover) advance() error {
	for {
		current, size := p.l.position()
		segments, err := listSegments(p.l.dir)
		if err != nil {
			return err
		}
		next := nextSegment(segments, p.place.segment)
		if current.first != p.place.segment.first && next == nil {
			return fmt.Errorf("audit segment %s is not there", current.name)
		}
		if err := p.addLines(current, size); err != nil {
			return err
		}
		if current.first == p.place.segment.first {
			return p.l.flush(p.place.segment)
		}
		if p.interrupted() {
			return errInterrupted
		}
		p.place = place{segment: *next, first: p.tree.Size(), trusted: p.place.trusted}
	}
}

// addLines adds those of the place's segment: up to size if it is the one being written, else all.
func (p *prover) addLines(current segmentName, size int64) error {
	f, err := os.Open(filepath.Join(p.l.dir, p.place.segment.name))
	if err != nil {
		return fmt.Errorf("read audit segment: %w", err)
	}
	defer f.Close()
	if p.place.segment.first != current.first {
		info, err := f.Stat()
		if err != nil {
			return fmt.Errorf("read audit segment: %w", err)
		}
		size = info.Size()
		if err := f.Sync(); err != nil { // what is signed must outlast a power cut
			return fmt.Errorf("sync audit segment: %w", err)
		}
	}
	var lines tree.Lines
	block := make([]byte, min(hashBlock, size-p.place.offset))
	for at := p.place.offset; at < size; {
		n, err := f.ReadAt(block[:min(int64(len(block)), size-at)], at)
		if err != nil {
			return fmt.Errorf("read audit segment: %w", err)
		}
		if err := p.addBlock(&lines, block[:n], at); err != nil {
			return err
		}
		at += int64(n)
	}
	return p.cutHashes()
}

// interrupted says whether a tree whose making takes long need not be made any more: the next start does it.
func (p *prover) interrupted() bool {
	select {
	case <-p.stop:
		return p.long
	default:
		return false
	}
}

func (p *prover) addBlock(lines *tree.Lines, block []byte, at int64) error {
	grown, end, added := p.tree.Clone(), p.place.offset, int64(0)
	hashes := p.made[:0]
	lines.Feed(block, func(leaf tree.Hash, behind int) {
		hashes = grown.Add(leaf, hashes)
		end = at + int64(behind)
		added++
	})
	p.made = hashes
	if added == 0 {
		return nil
	}
	if err := p.putHashes(hashes); err != nil {
		return err
	}
	p.tree = grown
	p.place.offset, p.place.lines = end, p.place.lines+added
	p.mu.Lock()
	p.store.Put(p.hashPath(p.place.segment), p.place.lines)
	p.mu.Unlock()
	return nil
}

// putHashes writes the hashes of the next lines where they belong. What stands there already must be the same if a
// checkpoint covers it; else the file is set aside and made anew.
func (p *prover) putHashes(hashes []tree.Hash) error {
	at := tree.HeadSize + tree.Hashes(p.place.first, p.place.lines)*int64(len(tree.Hash{}))
	data := p.data[:0]
	if p.place.lines == 0 {
		data, at = append(data, tree.Head(p.place.first)...), 0
	}
	for _, h := range hashes {
		data = append(data, h[:]...)
	}
	p.data = data
	path := p.hashPath(p.place.segment)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("write hashes: %w", err)
	}
	defer f.Close()
	if p.place.first+p.place.lines < p.place.trusted {
		there := make([]byte, len(data))
		n, err := f.ReadAt(there, at)
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return fmt.Errorf("read hashes: %w", err)
		case n == len(data) && bytes.Equal(there, data):
			return nil
		case !bytes.Equal(there[:n], data[:n]):
			if err := p.setHashesAside(path, f); err != nil {
				return err
			}
		}
	}
	if _, err := f.WriteAt(data, at); err != nil {
		return fmt.Errorf("write hashes: %w", err)
	}
	return nil
}

// setHashesAside keeps a copy of hashes that are not their lines'. Whether lines or hashes were changed is told by the
// checkpoint, once the tree is there.
func (p *prover) setHashesAside(path string, f *os.File) error {
	aside, err := os.OpenFile(path+wrongSuffix, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil // the rest of the same
	}
	if err != nil {
		return fmt.Errorf("set hashes aside: %w", err)
	}
	info, err := f.Stat()
	if err == nil {
		_, err = io.Copy(aside, io.NewSectionReader(f, 0, info.Size()))
	}
	if err = errors.Join(err, aside.Close()); err != nil {
		return fmt.Errorf("set hashes aside: %w", err)
	}
	p.l.log.Error("a hash file of the audit log is not its segment's: it was set aside and made anew", "file", path)
	p.report(ReasonHashesMismatch, "a hash file was not its segment's; it was set aside and made anew",
		map[string]string{"segment": p.place.segment.name, "aside": filepath.Base(path) + wrongSuffix})
	return nil
}

// cutHashes removes hashes of lines that were never whole.
func (p *prover) cutHashes() error {
	want := tree.HeadSize + tree.Hashes(p.place.first, p.place.lines)*int64(len(tree.Hash{}))
	info, err := os.Stat(p.hashPath(p.place.segment))
	if err != nil || info.Size() <= want || p.place.lines == 0 {
		return nil
	}
	return os.Truncate(p.hashPath(p.place.segment), want)
}

// lastCheckpoint returns the note of the last one written, nil if there is none, and cuts off one that was not finished.
func lastCheckpoint(dir string) ([]byte, error) {
	segments, err := listSegments(dir)
	if err != nil {
		return nil, err
	}
	for i := len(segments) - 1; i >= 0; i-- {
		path := filepath.Join(dir, segments[i].name+CheckpointSuffix)
		line, err := lastLine(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, fmt.Errorf("read checkpoints: %w", err)
		case line == nil:
			continue
		}
		note, err := DecodeCheckpoint(line)
		if err != nil {
			return nil, fmt.Errorf("the last line of %s: %w", path, err)
		}
		return note, nil
	}
	return nil, nil
}

func lastLine(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	torn, err := findTornLine(f)
	if err == nil && torn.bytes > 0 {
		err = f.Truncate(torn.whole)
	}
	if err != nil || torn.whole == 0 {
		return nil, err
	}
	tail := make([]byte, min(torn.whole, 2*checkpoint.MaxNote))
	if _, err := f.ReadAt(tail, torn.whole-int64(len(tail))); err != nil {
		return nil, err
	}
	return tail[bytes.LastIndexByte(tail[:len(tail)-1], '\n')+1:], nil
}
