package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == killChild {
		recordUntilKilled(os.Args[2])
		return
	}
	goleak.VerifyTestMain(m)
}

func openTest(t *testing.T, o Options) *Log {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = 128 << 10
	}
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// crash lets go of the log as a killed process does: nothing is written any more.
func crash(t *testing.T, l *Log) {
	t.Helper()
	l.closing.Do(func() {
		close(l.stop)
		l.working.Wait()
		l.proof.join()
		if err := l.release(); err != nil {
			t.Fatal(err)
		}
	})
}

func record(t *testing.T, l *Log, e Event) {
	t.Helper()
	if err := l.Record(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

func allow(request string) Event {
	return Event{Kind: KindDecision, Decision: Allow, Request: request, Principal: "corp/8a7f3c", Resource: "phi3", Action: "chat"}
}

func outcome(request string) Event {
	return Event{Kind: KindOutcome, Request: request, Status: 200, Ended: "done"}
}

// readAll returns the log's events and fails on anything that is none, or on a gap in the numbers.
func readAll(t *testing.T, dir string) []Event {
	t.Helper()
	var events []Event
	for e, err := range Read(dir) {
		if err != nil {
			t.Fatal(err)
		}
		if want := uint64(len(events)) + 1; e.Seq != want {
			t.Fatalf("record %d has number %d", want, e.Seq)
		}
		events = append(events, e)
	}
	return events
}

func ofKind(events []Event, kind string) []Event {
	var found []Event
	for _, e := range events {
		if e.Kind == kind {
			found = append(found, e)
		}
	}
	return found
}

func withReason(events []Event, reason string) []Event {
	var found []Event
	for _, e := range events {
		if e.Reason == reason {
			found = append(found, e)
		}
	}
	return found
}

func TestRecordIsInTheFileWhenAcknowledged(t *testing.T) {
	l := openTest(t, Options{})
	before := time.Now()
	record(t, l, allow("r1"))
	events := ofKind(readAll(t, l.dir), KindDecision) // the log is still open
	if len(events) != 1 || events[0].Request != "r1" || events[0].Principal != "corp/8a7f3c" {
		t.Fatalf("the file holds %+v", events)
	}
	if events[0].Time.Before(before.Round(0)) || events[0].Mono <= 0 {
		t.Errorf("time %v, mono %d", events[0].Time, events[0].Mono)
	}
}

func TestNumbersGoOnAfterARestart(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		l := openTest(t, Options{Dir: dir})
		record(t, l, Event{Kind: KindLogin})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
	}
	if events := readAll(t, dir); len(events) != 4 { // a segment_start and three logins
		t.Errorf("%d events", len(events))
	}
}

func TestConcurrentRecordsAreAllWrittenAcrossSegments(t *testing.T) {
	for _, mode := range []string{SyncWrite, SyncGroup} {
		t.Run(mode, func(t *testing.T) {
			l := openTest(t, Options{Sync: mode, SegmentBytes: 4 << 10})
			const workers, each = 16, 40
			var all sync.WaitGroup
			for w := range workers {
				all.Go(func() {
					for i := range each {
						request := fmt.Sprintf("r/%d/%d", w, i)
						if err := errors.Join(l.Record(t.Context(), allow(request)), l.Record(t.Context(), outcome(request))); err != nil {
							t.Error(err)
						}
					}
				})
			}
			all.Wait()
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			events := readAll(t, l.dir)
			if d, o := ofKind(events, KindDecision), ofKind(events, KindOutcome); len(d) != workers*each || len(o) != workers*each {
				t.Errorf("%d decisions and %d outcomes, want %d", len(d), len(o), workers*each)
			}
			for i := 1; i < len(events); i++ {
				if events[i].Mono < events[i-1].Mono {
					t.Errorf("monotonic time falls at record %d", events[i].Seq)
				}
			}
			if segments, err := listSegments(l.dir); err != nil || len(segments) < 10 {
				t.Errorf("%d segments, %v", len(segments), err)
			}
		})
	}
}

func TestSegmentsAreNamedByTheirFirstRecord(t *testing.T) {
	l := openTest(t, Options{SegmentBytes: 1 << 10})
	for range 50 {
		record(t, l, Event{Kind: KindLogin, Message: strings.Repeat("m", 100)})
	}
	segments, err := listSegments(l.dir)
	if err != nil || len(segments) < 3 {
		t.Fatal(segments, err)
	}
	for _, s := range segments {
		for e, err := range readSegment(filepath.Join(l.dir, s.name)) {
			if err != nil || e.Seq != s.first || e.Reason != ReasonSegmentStart {
				t.Errorf("%s begins with %+v, %v", s.name, e, err)
			}
			break
		}
	}
	first := segments[2].first
	for e, err := range ReadFrom(l.dir, first) {
		if err != nil || e.Seq != first {
			t.Errorf("reading from %d begins at %d, %v", first, e.Seq, err)
		}
		break
	}
}

func TestFilesAreTheOwnersOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	l := openTest(t, Options{Dir: dir})
	record(t, l, allow("r"))
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Fatal(entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory has mode %v, %v", info.Mode(), err)
	}
}

func TestOneProcessWrites(t *testing.T) {
	l := openTest(t, Options{})
	if _, err := Open(Options{Dir: l.dir}); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("second open: %v", err)
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	for _, o := range []Options{{}, {Dir: t.TempDir(), Sync: "sometimes"}, {Dir: t.TempDir(), SegmentBytes: -1}} {
		if l, err := Open(o); err == nil {
			l.Close()
			t.Errorf("%+v was accepted", o)
		}
	}
}

func TestClosedLogTakesNothing(t *testing.T) {
	l := openTest(t, Options{})
	l.Close()
	for _, err := range []error{l.Record(t.Context(), allow("r")), l.Denied(t.Context(), Event{Kind: KindLogin}), l.Healthy()} {
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("closed log: %v", err)
		}
	}
}

func TestEndedContextStopsDecisionsButNotOutcomes(t *testing.T) {
	l := openTest(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Record(ctx, allow("r")); !errors.Is(err, context.Canceled) {
		t.Errorf("decision: %v", err)
	}
	if err := l.Record(ctx, outcome("r0")); err != nil {
		t.Errorf("outcome: %v", err)
	}
	if err := l.Denied(ctx, Event{Kind: KindLogin, Decision: Deny}); err != nil {
		t.Errorf("denial: %v", err)
	}
	if events := readAll(t, l.dir); len(events) != 3 {
		t.Errorf("the file holds %+v", events)
	}
}

func TestAU09WallClockMayJump(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	l := openTest(t, Options{Now: func() time.Time { return now }})
	for _, jump := range []time.Duration{time.Second, -time.Hour, 2 * time.Hour} {
		now = now.Add(jump)
		record(t, l, Event{Kind: KindLogin})
	}
	events := ofKind(readAll(t, l.dir), KindLogin)
	if !events[1].Time.Before(events[0].Time) || events[1].Mono < events[0].Mono || events[2].Mono <= events[1].Mono {
		t.Errorf("times %v %v %v, mono %d %d %d", events[0].Time, events[1].Time, events[2].Time, events[0].Mono, events[1].Mono, events[2].Mono)
	}
}
