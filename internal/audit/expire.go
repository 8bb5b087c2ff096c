package audit

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"iap/internal/audit/checkpoint"
	"iap/internal/audit/tree"
)

// expire deletes the segments whose records are all older than the retention allows. Before, the hashes of their tree
// that the rest needs are written down under a signed head: so a segment that is gone without one was not taken by
// retention. A segment with a decision that is still open is kept, and so is all behind it.
func (p *prover) expire() error {
	if p.retain <= 0 || p.tree == nil {
		return p.Fault()
	}
	segments, err := listSegments(p.l.dir)
	if err != nil {
		return err
	}
	_, known, _, err := ReadExpired(p.l.dir)
	if err != nil {
		return err
	}
	limit, open := p.l.now().Add(-p.retain), p.l.oldestOpen()
	cut := 0 // segments that go
	var before time.Time
	for i := 1; i < len(segments); i++ {
		begins := firstTime(filepath.Join(p.l.dir, segments[i].name))
		if begins.IsZero() || begins.After(limit) || segments[i].first > open {
			break
		}
		cut, before = i, begins
	}
	if cut == 0 {
		return p.Fault()
	}
	lines, ok := p.firstLine(segments[cut])
	if !ok || lines <= 0 {
		return p.Fault()
	}
	if lines > known.Size() {
		if err := p.signExpired(segments[cut].first-1, lines, before); err != nil {
			return err
		}
	}
	p.nudge()
	return deleteSegments(p.l.dir, segments[:cut])
}

// Fault is why there are no new checkpoints: retention leaves that as it is.
func (p *prover) Fault() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault
}

// firstLine is how many lines stand before a segment, if a checkpoint covers them.
func (p *prover) firstLine(s segmentName) (int64, bool) {
	first, ok := tree.FileFirst(p.hashPath(s))
	p.mu.Lock()
	defer p.mu.Unlock()
	return first, ok && p.latest != nil && first <= p.latest.Size
}

// signExpired writes the head of what is gone, and a record of it.
func (p *prover) signExpired(through uint64, lines int64, before time.Time) error {
	key, _, err := p.keys()
	if err != nil {
		return fmt.Errorf("the relay's key: %w", err)
	}
	p.mu.Lock()
	gone, err := p.store.RangeAt(lines)
	p.mu.Unlock()
	if err != nil {
		return err
	}
	head, err := checkpoint.Sign(checkpoint.Checkpoint{Origin: p.origin, Size: lines, Root: gone.Root(), Time: p.l.now(), Expired: through, Before: before}, key)
	if err != nil {
		return err
	}
	e := Expired{Subtrees: gone.Subtrees(), Head: string(head.Note)}
	if err := p.l.record(&Event{
		Kind: KindRelay, Reason: ReasonExpired, Count: lines,
		Message: "records were deleted, as retention asks",
		Detail:  map[string]string{"through": strconv.FormatUint(through, 10), "retain": p.retain.String()},
	}, true); err != nil {
		return err
	}
	if err := writeAtomic(filepath.Join(p.l.dir, ExpiredFile), e.encode()); err != nil {
		return fmt.Errorf("write the head of what has expired: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.store.Expire(gone)
}

// deleteSegments deletes segments and what stands beside them, oldest first.
func deleteSegments(dir string, segments []segmentName) error {
	for _, s := range segments {
		for _, suffix := range []string{HashSuffix, HashSuffix + wrongSuffix, CheckpointSuffix, tornSuffix, ""} {
			if err := os.Remove(filepath.Join(dir, s.name+suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("delete an expired segment: %w", err)
			}
		}
	}
	return syncDir(dir)
}

// oldestOpen is the number of the oldest decision without an outcome; the largest number if there is none.
func (l *Log) oldestOpen() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	oldest := ^uint64(0)
	for _, decisions := range []map[string]openDecision{l.open, l.lost} {
		for _, d := range decisions {
			oldest = min(oldest, d.seq)
		}
	}
	return oldest
}

// position is the segment being written and how many bytes of it are whole records.
func (l *Log) position() (segmentName, int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return segmentName{nameSegment(l.segment.first), l.segment.first}, l.size
}

// flush puts what was written to the segment on the disk, for its checkpoint.
func (l *Log) flush(of segmentName) error {
	l.mu.Lock()
	s := l.segment
	l.mu.Unlock()
	if s.first != of.first {
		return nil // it has ended: the next look syncs it
	}
	return s.flush()
}

func publicKey(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }
