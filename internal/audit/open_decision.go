package audit

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// openDecision is an allowed request that has no outcome yet. Its identity is kept as encoded, since it is only ever
// written again.
type openDecision struct {
	seq      uint64
	identity []byte
}

// decisionSeq is the detail that leads from an outcome written by the log back to the decision's record.
const decisionSeq = "decision_seq"

// track keeps the set of open decisions current after e was written as record seq; l.mu is held.
func (l *Log) track(e *Event, n *line, seq uint64) {
	switch {
	case e.opens():
		l.open[strings.Clone(e.Request)] = openDecision{seq, slices.Clone(n.buf[n.identity[0]:n.identity[1]])}
	case e.Kind == KindOutcome && e.Request != "":
		delete(l.open, e.Request)
	}
}

// encodeOpen repeats an open decision at the head of a segment.
func (n *line) encodeOpen(d openDecision) {
	n.begin(KindRelay)
	n.buf = append(n.buf, d.identity...)
	n.text("reason", ReasonOpenDecision, shortText)
	n.decision(d)
	n.end()
}

// encodeLost ends an open decision for a relay that no longer can.
func (n *line) encodeLost(d openDecision) {
	n.begin(KindOutcome)
	n.buf = append(n.buf, d.identity...)
	n.text("ended", EndedRelayLost, shortText)
	n.decision(d)
	n.end()
}

func (n *line) decision(d openDecision) {
	n.buf = append(n.buf, `,"detail":{"`+decisionSeq+`":"`...)
	n.buf = strconv.AppendUint(n.buf, d.seq, 10)
	n.buf = append(n.buf, `"}`...)
}

// endLastRun writes what the last run left to be said: what was found in its files, and the outcomes of the decisions
// it left open. With urgent these records may use the reserve. What could not be written stays to be tried again; l.mu
// is held.
func (l *Log) endLastRun(urgent bool) error {
	var n line
	for len(l.notes) > 0 {
		n.encode(&l.notes[0])
		if err := l.writeFrom(&n, urgent); err != nil {
			return err
		}
		l.notes = l.notes[1:]
	}
	for request, d := range l.lost {
		n.encodeLost(d)
		if err := l.writeFrom(&n, urgent); err != nil {
			return err
		}
		delete(l.lost, request)
	}
	return nil
}

// scan is what a reading of the log's end found.
type scan struct {
	last uint64 // highest seq
	bad  int64  // lines that are no events
	open map[string]openDecision
}

// scanTail reads as much of the log's end as is needed to know every open decision: the segments from the last one on
// whose head is complete. Usually that is the last segment alone; one more if the relay died while it began a segment.
func scanTail(paths []string) (scan, error) {
	from := len(paths) - 1
	for ; from > 0; from-- {
		whole, err := headComplete(paths[from])
		if err != nil {
			return scan{}, err
		}
		if whole {
			break
		}
	}
	s := scan{open: make(map[string]openDecision)}
	for _, path := range paths[from:] {
		for e, err := range readSegment(path) {
			var bad *LineError
			switch {
			case errors.As(err, &bad):
				s.bad++
			case err != nil:
				return scan{}, err
			default:
				s.add(&e)
			}
		}
	}
	return s, nil
}

func (s *scan) add(e *Event) {
	s.last = max(s.last, e.Seq)
	seq := e.Seq
	carried := e.Kind == KindRelay && e.Reason == ReasonOpenDecision && e.Request != ""
	if carried {
		if n, err := strconv.ParseUint(e.Detail[decisionSeq], 10, 64); err == nil {
			seq = n
		}
	}
	switch {
	case e.opens() || carried:
		var n line
		n.encode(e)
		s.open[e.Request] = openDecision{seq, slices.Clone(n.buf[n.identity[0]:n.identity[1]])}
	case e.Kind == KindOutcome:
		delete(s.open, e.Request)
	}
}

// headComplete says whether a segment begins with all the open decisions that its first record promises.
func headComplete(path string) (bool, error) {
	missing := int64(-1) // not known before the first record
	for e, err := range readSegment(path) {
		var bad *LineError
		switch {
		case errors.As(err, &bad):
			return false, nil
		case err != nil:
			return false, err
		case missing < 0 && e.Kind == KindRelay && e.Reason == ReasonSegmentStart && e.Count >= 0:
			missing = e.Count
		case missing > 0 && e.Kind == KindRelay && e.Reason == ReasonOpenDecision:
			missing--
		default:
			return false, nil
		}
		if missing == 0 {
			return true, nil
		}
	}
	return false, nil
}
