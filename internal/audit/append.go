package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

var (
	errClosed  = fmt.Errorf("%w: log is closed", ErrUnavailable)
	errReserve = errors.New("the disk is full and the reserve is in use")
	errNoKind  = errors.New("audit log refuses an event without kind")
)

// Record writes one event. When it returns nil the record is in the file (and on the disk, with SyncGroup); when it
// returns an error, what the event was about must not happen. Outcomes, admin and session events are written from the
// reserve when the disk is full, and although ctx has ended: they take rights away or tell how something ended.
func (l *Log) Record(ctx context.Context, e Event) error {
	urgent := e.urgent()
	if err := ctx.Err(); err != nil && !urgent {
		return err
	}
	return l.record(&e, urgent)
}

func (l *Log) record(e *Event, urgent bool) error {
	if e.Kind == "" {
		return errNoKind
	}
	n := l.lines.Get().(*line)
	defer l.lines.Put(n)
	n.encode(e)
	b, err := l.append(e, n, urgent)
	if err != nil || !l.durable {
		return err
	}
	if err := l.commit(b); err != nil {
		l.endUnsynced(e, n)
		return l.unsynced(err)
	}
	return nil
}

// endUnsynced gives an outcome to a decision that may or may not be on the disk: nobody will act on it.
func (l *Log) endUnsynced(e *Event, n *line) {
	if !e.opens() {
		return
	}
	end := Event{
		Kind: KindOutcome, Request: e.Request, Session: e.Session, Principal: e.Principal, Agent: e.Agent,
		Resource: e.Resource, Ended: EndedAuditUnavailable,
	}
	n.encode(&end)
	if _, err := l.append(&end, n, true); err != nil {
		l.log.Error("a decision that could not be synced has no outcome", "request", e.Request, "error", err)
	}
}

// unsynced notes that records could not be made durable.
func (l *Log) unsynced(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail(err)
	return l.unavailable(err)
}

// append gives the record its number, writes it and returns what to wait for until it is synced.
func (l *Log) append(e *Event, n *line, urgent bool) (*batch, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	if l.fault != nil && !urgent {
		if err := l.heal(); err != nil {
			l.refused++
			return nil, err
		}
	}
	if err := l.writeFrom(n, urgent); err != nil {
		l.refused++
		return nil, l.unavailable(err)
	}
	l.track(e, n, l.seq)
	return l.batch, nil
}

// writeFrom writes one record, taking space from the reserve if it is urgent and there is none, and remembers the fault;
// l.mu is held.
func (l *Log) writeFrom(n *line, urgent bool) error {
	err := l.write(n)
	for urgent && noSpace(err) && l.reserve.shrink() {
		if err = l.write(n); err == nil {
			l.fail(errReserve)
			return nil
		}
	}
	if err != nil {
		l.fail(err)
	}
	return err
}

// write puts one record at the end of the file with one write call, or leaves the file as it was; l.mu is held.
func (l *Log) write(n *line) error {
	if l.dirty {
		if err := l.undo(); err != nil {
			return err
		}
	}
	now, mono := l.stamp()
	worn, old := l.segment.worn.Load(), !l.ages.IsZero() && !now.Before(l.ages)
	if worn || old || l.size >= l.rotateAt {
		if err := l.rotate(); err != nil {
			if worn {
				return err
			}
			// A segment that is too long is better than a record that is missing.
			l.rotateAt = l.size + l.segmentBytes/rotateRetry
			l.agesFrom(now)
			l.log.Warn("audit segment could not be rotated", "error", err)
		}
		now, mono = l.stamp()
	}
	if !n.at.IsZero() {
		now = n.at
	}
	b := n.seal(l.seq+1, now, mono)
	if _, err := l.segment.WriteAt(b, l.size); err != nil {
		l.dirty = true
		return errors.Join(err, l.undo())
	}
	l.size += int64(len(b))
	l.seq++
	return nil
}

// undo removes what a failed write left behind the last whole record.
func (l *Log) undo() error {
	if err := l.segment.Truncate(l.size); err != nil {
		return fmt.Errorf("undo a failed write: %w", err)
	}
	l.dirty = false
	return nil
}

// stamp returns the time of a record. The monotonic part never falls, whatever the wall clock does.
func (l *Log) stamp() (now time.Time, mono int64) {
	now = l.now()
	l.mono = max(l.mono, int64(now.Sub(l.started)))
	return now, l.mono
}

// fail notes why the log cannot take records; l.mu is held.
func (l *Log) fail(err error) {
	if l.fault == nil {
		l.log.Error("audit log cannot be written: requests are refused until it can", "dir", l.dir, "error", err)
	}
	l.fault = err
}

// heal tries to bring a faulty log back: the reserve first, then the outcomes that could not be written, then a record
// that tells of the gap. l.mu is held.
func (l *Log) heal() error {
	if err := l.reserve.fill(); err != nil {
		if !noSpace(err) {
			l.fault = err
		}
		return l.unavailable(l.fault)
	}
	if err := l.endLastRun(false); err != nil {
		return l.unavailable(err)
	}
	var n line
	n.encode(&Event{Kind: KindRelay, Reason: ReasonRecovered, Count: l.refused, Message: l.fault.Error()})
	if err := l.writeFrom(&n, false); err != nil {
		return l.unavailable(err)
	}
	l.log.Info("audit log can be written again", "dir", l.dir, "refused", l.refused)
	l.fault, l.refused = nil, 0
	return nil
}

// unavailable words a fault for whoever has to mend it.
func (l *Log) unavailable(err error) error {
	switch {
	case noSpace(err) || errors.Is(err, errReserve):
		return fmt.Errorf("%w: no space left for %s: make room and requests are taken again at once", ErrUnavailable, l.dir)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: %s may not be written: %w", ErrUnavailable, l.dir, err)
	}
	return fmt.Errorf("%w: write in %s: %w", ErrUnavailable, l.dir, err)
}
