package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func lastSegment(t *testing.T, dir string) string {
	t.Helper()
	segments, err := listSegments(dir)
	if err != nil || len(segments) == 0 {
		t.Fatal(segments, err)
	}
	return filepath.Join(dir, segments[len(segments)-1].name)
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// wantOneOutcomeEach checks that every allowed decision has exactly one outcome, and returns those of a lost relay.
func wantOneOutcomeEach(t *testing.T, events []Event) (lost []Event) {
	t.Helper()
	ends := map[string]int{}
	for _, e := range ofKind(events, KindOutcome) {
		ends[e.Request]++
		if e.Ended == EndedRelayLost {
			lost = append(lost, e)
		}
	}
	for _, e := range ofKind(events, KindDecision) {
		if n := ends[e.Request]; n != 1 {
			t.Errorf("decision %s has %d outcomes", e.Request, n)
		}
		delete(ends, e.Request)
	}
	if len(ends) != 0 {
		t.Errorf("outcomes without decision: %v", ends)
	}
	return lost
}

func TestOpenDecisionsOfADeadRelayAreEnded(t *testing.T) {
	dir := t.TempDir()
	l := openTest(t, Options{Dir: dir})
	for i := range 5 {
		record(t, l, allow(fmt.Sprint("r", i)))
	}
	record(t, l, outcome("r1"))
	record(t, l, Event{Kind: KindDecision, Decision: Deny, Request: "denied"})
	crash(t, l)
	openTest(t, Options{Dir: dir}).Close()
	openTest(t, Options{Dir: dir}).Close() // and only once
	events := readAll(t, dir)
	lost := withEnded(events, EndedRelayLost)
	if len(lost) != 4 {
		t.Fatalf("%d outcomes of a lost relay, want 4", len(lost))
	}
	for _, e := range lost {
		decision := events[mustAtoi(t, e.Detail[decisionSeq])-1]
		if decision.Kind != KindDecision || decision.Request != e.Request || e.Principal != decision.Principal ||
			e.Resource != decision.Resource || e.Action != decision.Action {
			t.Errorf("outcome %+v\nof decision %+v", e, decision)
		}
	}
}

func withEnded(events []Event, ended string) []Event {
	var found []Event
	for _, e := range events {
		if e.Ended == ended {
			found = append(found, e)
		}
	}
	return found
}

func mustAtoi(t *testing.T, s string) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return n
}

// TestLongOpenDecisionsAreCarriedFromSegmentToSegment keeps some requests open over many rotations: a restart must find
// them in the last segment alone, the others being gone.
func TestLongOpenDecisionsAreCarriedFromSegmentToSegment(t *testing.T) {
	dir := t.TempDir()
	l := openTest(t, Options{Dir: dir, SegmentBytes: 2 << 10})
	for _, r := range []string{"long1", "long2", "ended"} {
		record(t, l, allow(r))
	}
	for i := range 100 {
		request := fmt.Sprint("short", i)
		record(t, l, allow(request))
		record(t, l, outcome(request))
		if i == 50 {
			record(t, l, outcome("ended"))
		}
	}
	crash(t, l)
	segments, err := listSegments(dir)
	if err != nil || len(segments) < 5 {
		t.Fatal(segments, err)
	}
	for _, s := range segments[:len(segments)-1] {
		if err := os.Rename(filepath.Join(dir, s.name), filepath.Join(t.TempDir(), s.name)); err != nil {
			t.Fatal(err)
		}
	}
	openTest(t, Options{Dir: dir}).Close()
	lost := map[string]Event{}
	for e, err := range Read(dir) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Ended == EndedRelayLost {
			lost[e.Request] = e
		}
	}
	if len(lost) != 2 || lost["long1"].Detail[decisionSeq] != "2" || lost["long2"].Detail[decisionSeq] != "3" {
		t.Errorf("lost: %+v", lost)
	}
	if lost["long1"].Principal != "corp/8a7f3c" {
		t.Errorf("the carried decision lost its principal: %+v", lost["long1"])
	}
}

// TestCrashWhileASegmentWasBegunLosesNoOpenDecision cuts the newest segment's head at every byte.
func TestCrashWhileASegmentWasBegunLosesNoOpenDecision(t *testing.T) {
	source := t.TempDir()
	l := openTest(t, Options{Dir: source, SegmentBytes: 1 << 10})
	for _, r := range []string{"a", "b", "c"} {
		record(t, l, allow(r))
	}
	for i := 0; ; i++ {
		segments, err := listSegments(source)
		if err != nil {
			t.Fatal(err)
		}
		if len(segments) == 3 {
			break
		}
		record(t, l, Event{Kind: KindLogin})
	}
	crash(t, l)
	segments, _ := listSegments(source)
	head, err := os.ReadFile(lastSegment(t, source))
	if err != nil {
		t.Fatal(err)
	}
	for cut := 0; cut < len(head); cut += 7 {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, segments[2].name), head[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		openTest(t, Options{Dir: dir}).Close()
		if lost := wantOneOutcomeEach(t, readAll(t, dir)); len(lost) != 3 {
			t.Errorf("cut at %d of %d: %d decisions ended", cut, len(head), len(lost))
		}
	}
}

func TestTornLastLineIsSetAside(t *testing.T) {
	for _, tail := range []string{`{"v":1,"seq":3,"ti`, "\x00\x00\x00", strings.Repeat("x", 3*MaxLine)} {
		dir := t.TempDir()
		l := openTest(t, Options{Dir: dir})
		record(t, l, Event{Kind: KindLogin})
		crash(t, l)
		segment := lastSegment(t, dir)
		appendTo(t, segment, tail)
		l = openTest(t, Options{Dir: dir})
		record(t, l, Event{Kind: KindLogin})
		l.Close()
		torn := withReason(readAll(t, dir), ReasonTornLine)
		if len(torn) != 1 || torn[0].Detail["bytes"] != fmt.Sprint(len(tail)) || torn[0].Detail["segment"] != filepath.Base(segment) {
			t.Fatalf("events about a torn line: %+v", torn)
		}
		if aside, err := os.ReadFile(filepath.Join(dir, torn[0].Detail["aside"])); err != nil || string(aside) != tail {
			t.Errorf("set aside: %d bytes, %v", len(aside), err)
		}
	}
}

func TestSegmentThatIsTornWhollyIsBegunAnew(t *testing.T) {
	dir := t.TempDir()
	l := openTest(t, Options{Dir: dir})
	record(t, l, allow("r"))
	last := l.seq
	crash(t, l)
	for i, content := range []string{"", "{", "\x00"} {
		if err := os.WriteFile(filepath.Join(dir, nameSegment(last+1)), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		l := openTest(t, Options{Dir: dir})
		if l.seq <= last {
			t.Errorf("numbers go on at %d after %d", l.seq, last)
		}
		last = l.seq
		crash(t, l)
		if lost := wantOneOutcomeEach(t, readAll(t, dir)); len(lost) != 1 {
			t.Errorf("round %d: %d decisions ended", i, len(lost))
		}
	}
}

func TestBadLinesAreLeftAndTold(t *testing.T) {
	dir := t.TempDir()
	l := openTest(t, Options{Dir: dir})
	record(t, l, allow("r"))
	crash(t, l)
	appendTo(t, lastSegment(t, dir), "garbage\n\x00\x00\n")
	openTest(t, Options{Dir: dir}).Close()
	var told, garbage, lost int
	for e, err := range Read(dir) {
		switch {
		case err != nil:
			garbage++
		case e.Reason == ReasonBadLines:
			told += int(e.Count)
		case e.Ended == EndedRelayLost:
			lost++
		}
	}
	if garbage != 2 || told != 2 || lost != 1 {
		t.Errorf("%d bad lines in the file, %d told, %d decisions ended", garbage, told, lost)
	}
}
