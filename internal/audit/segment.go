package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// segmentName is a file of the log and the number of its first record.
type segmentName struct {
	name  string
	first uint64
}

const (
	segmentPrefix = "audit-"
	segmentSuffix = ".jsonl"
	segmentDigits = 20 // of the largest uint64, so that names sort as numbers do
)

func nameSegment(first uint64) string {
	return fmt.Sprintf("%s%0*d%s", segmentPrefix, segmentDigits, first, segmentSuffix)
}

// listSegments returns the log's files, oldest first. Other files in the directory are not looked at.
func listSegments(dir string) ([]segmentName, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list audit segments: %w", err)
	}
	var segments []segmentName
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), segmentPrefix)
		if !ok {
			continue
		}
		digits, ok = strings.CutSuffix(digits, segmentSuffix)
		first, err := strconv.ParseUint(digits, 10, 64)
		if ok && err == nil && len(digits) == segmentDigits && first > 0 {
			segments = append(segments, segmentName{e.Name(), first})
		}
	}
	slices.SortFunc(segments, func(a, b segmentName) int { return strings.Compare(a.name, b.name) })
	return segments, nil
}

// file is what the log needs of an open segment.
type file interface {
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
	Sync() error // contents, and what is needed to find them
	Close() error
}

// segmentFile is a file on the disk.
type segmentFile struct {
	*os.File
	raw syscall.RawConn
}

func openSegment(path string, flags int) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|flags, 0o600)
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &segmentFile{File: f, raw: raw}, nil
}

func (f *segmentFile) Sync() error {
	var err error
	if control := f.raw.Control(func(fd uintptr) { err = syncData(f.File, fd) }); control != nil {
		return control
	}
	return err
}

// rotate begins a new segment. Its first record says how many decisions are open, and they are repeated behind it: so a
// restart finds every open decision in the last segment. On error the old segment stays in use.
func (l *Log) rotate() error {
	first := l.seq + 1
	path := filepath.Join(l.dir, nameSegment(first))
	next, err := l.openFile(path, os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	head, records := l.segmentHead()
	if _, err := next.WriteAt(head, 0); err != nil {
		return errors.Join(err, next.Close(), os.Remove(path))
	}
	if l.durable {
		if err := syncDir(l.dir); err != nil {
			return errors.Join(err, next.Close(), os.Remove(path))
		}
	}
	l.endSegment(l.durable)
	l.segment = &segment{file: next, first: first}
	l.size = int64(len(head))
	l.rotateAt = l.size + l.segmentBytes
	l.agesFrom(l.now())
	l.proof.nudge()
	l.seq += records
	return nil
}

// agesFrom sets when the segment that was begun then is old enough to be followed by a new one; l.mu is held.
func (l *Log) agesFrom(begun time.Time) {
	if l.segmentAge > 0 {
		l.ages = begun.Add(l.segmentAge)
	}
}

// endSegment closes the segment and tells those who wait for its last records how they fared; l.mu is held.
func (l *Log) endSegment(durable bool) {
	if l.segment == nil {
		return
	}
	synced, closed := l.segment.end(durable)
	l.batch.finish(synced)
	l.batch = newBatch()
	if err := errors.Join(synced, closed); err != nil {
		l.log.Error("an audit segment did not end cleanly", "last_seq", l.seq, "error", err)
	}
}

// segmentHead encodes the first records of a segment.
func (l *Log) segmentHead() (head []byte, records uint64) {
	open := make([]openDecision, 0, len(l.open)+len(l.lost))
	for _, decisions := range []map[string]openDecision{l.open, l.lost} {
		for _, d := range decisions {
			open = append(open, d)
		}
	}
	slices.SortFunc(open, func(a, b openDecision) int { return int(int64(a.seq - b.seq)) })
	now, mono := l.stamp()
	var n line
	n.encode(&Event{Kind: KindRelay, Reason: ReasonSegmentStart, Count: int64(len(open))})
	head = append(head, n.seal(l.seq+1, now, mono)...)
	for i, d := range open {
		n.encodeOpen(d)
		head = append(head, n.seal(l.seq+2+uint64(i), now, mono)...)
	}
	return head, uint64(len(open)) + 1
}
