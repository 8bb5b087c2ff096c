package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// recover continues the log where the last run left it.
func (l *Log) recover() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.reserve.open(); err != nil {
		return err
	}
	if err := l.reserve.fill(); err != nil {
		l.fail(err)
	}
	segments, err := listSegments(l.dir)
	if err != nil {
		return err
	}
	if len(segments) > 0 {
		if err := l.resume(segments); err != nil {
			return err
		}
	}
	if l.segment == nil {
		if err := l.beginFirst(); err != nil {
			return fmt.Errorf("begin audit segment: %w", err)
		}
	}
	if err := l.endLastRun(true); err != nil {
		l.log.Error("decisions that the last run left open have no outcome yet", "count", len(l.lost), "error", err)
	}
	return nil
}

// beginFirst begins a segment where there is none to go on with, if need be in the reserve's space.
func (l *Log) beginFirst() error {
	err := l.rotate()
	for noSpace(err) && l.reserve.shrink() {
		l.fail(errReserve)
		err = l.rotate()
	}
	return err
}

// resume opens the last segment, finds the open decisions and notes what was not in order.
func (l *Log) resume(segments []segmentName) error {
	last := segments[len(segments)-1]
	path := filepath.Join(l.dir, last.name)
	torn, err := l.setTornLineAside(path)
	if err != nil {
		return err
	}
	if torn.bytes > 0 {
		l.notes = append(l.notes, torn.event(last.name))
	}
	paths := make([]string, len(segments))
	for i, s := range segments {
		paths[i] = filepath.Join(l.dir, s.name)
	}
	found, err := scanTail(paths)
	if err != nil {
		return err
	}
	l.seq, l.lost = max(found.last, last.first-1), found.open
	if found.bad > 0 {
		l.notes = append(l.notes, Event{
			Kind: KindRelay, Reason: ReasonBadLines, Count: found.bad,
			Message: "lines of the last segment are no events; they were left where they are",
		})
	}
	if torn.whole == 0 {
		// Nothing of the segment was kept: it is begun anew, with its head.
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove empty audit segment: %w", err)
		}
		l.seq = max(last.first-1, found.last)
		return nil
	}
	file, err := l.openFile(path, 0)
	if err != nil {
		return fmt.Errorf("open audit segment: %w", err)
	}
	l.segment, l.size, l.rotateAt = &segment{file: file, first: last.first}, torn.whole, l.segmentBytes
	if begun := firstTime(path); !begun.IsZero() {
		l.agesFrom(begun)
	}
	return nil
}

// tornLine is the unfinished end of a segment.
type tornLine struct {
	whole int64 // bytes of whole lines before it
	bytes int64
}

func (t tornLine) event(segment string) Event {
	return Event{
		Kind: KindRelay, Reason: ReasonTornLine,
		Message: "the last line was not finished when the relay ended; nobody acted on it, and it was set aside",
		Detail: map[string]string{
			"segment": segment, "offset": strconv.FormatInt(t.whole, 10),
			"bytes": strconv.FormatInt(t.bytes, 10), "aside": segment + tornSuffix,
		},
	}
}

const tornSuffix = ".torn"

// setTornLineAside moves what follows the last newline into a file beside the segment: a record that was not finished
// was never acknowledged.
func (l *Log) setTornLineAside(path string) (tornLine, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return tornLine{}, fmt.Errorf("open audit segment: %w", err)
	}
	defer f.Close()
	torn, err := findTornLine(f)
	if err != nil || torn.bytes == 0 {
		return torn, err
	}
	err = copyAside(f, torn, path+tornSuffix)
	for noSpace(err) && l.reserve.shrink() {
		l.fail(errReserve)
		err = copyAside(f, torn, path+tornSuffix)
	}
	if err != nil {
		return torn, fmt.Errorf("set an unfinished line of %s aside: %w", path, err)
	}
	if err := errors.Join(f.Truncate(torn.whole), f.Sync()); err != nil {
		return torn, fmt.Errorf("cut an unfinished line from %s: %w", path, err)
	}
	return torn, nil
}

// findTornLine looks for the last newline, from the end.
func findTornLine(f *os.File) (tornLine, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return tornLine{}, fmt.Errorf("read audit segment: %w", err)
	}
	buf := make([]byte, MaxLine)
	for to := end; to > 0; {
		from := max(0, to-int64(len(buf)))
		part := buf[:to-from]
		if _, err := f.ReadAt(part, from); err != nil {
			return tornLine{}, fmt.Errorf("read audit segment: %w", err)
		}
		if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
			whole := from + int64(i) + 1
			return tornLine{whole: whole, bytes: end - whole}, nil
		}
		to = from
	}
	return tornLine{bytes: end}, nil
}

// copyAside appends the torn line to a file of its own, wholly or not at all.
func copyAside(f *os.File, torn tornLine, path string) error {
	aside, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer aside.Close()
	before, err := aside.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := io.Copy(aside, io.NewSectionReader(f, torn.whole, torn.bytes)); err != nil {
		return errors.Join(err, aside.Truncate(before))
	}
	return aside.Sync()
}
