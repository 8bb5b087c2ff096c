package sink

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"iap/internal/audit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waits for events that must happen; no test passes by it.
const patience = 20 * time.Second

const origin = "relay.example.com/audit/main"

// testLog is a log in use, and the folder of its sinks' positions.
type testLog struct {
	*audit.Log
	dir, positions string
}

func newLog(t testing.TB, o audit.Options) *testLog {
	t.Helper()
	root := t.TempDir()
	o.Dir, o.ReserveBytes = filepath.Join(root, "audit"), -1
	l, err := audit.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &testLog{l, o.Dir, filepath.Join(root, "sinks")}
}

func (l *testLog) write(t testing.TB, n int) {
	t.Helper()
	for i := range n {
		e := audit.Event{Kind: audit.KindSession, Session: fmt.Sprint("s-", i), Principal: "corp/8a7f3c", Message: `says "é]\` + "\n" + `"`}
		if err := l.Record(context.Background(), e); err != nil {
			t.Fatal(err)
		}
	}
}

// options are those of a relay whose sinks look often and wait little.
func (l *testLog) options() Options {
	return Options{
		Dir: l.dir, Positions: l.positions, Origin: origin, Version: "1.2.3", Record: l.Record, Poll: time.Millisecond, Within: patience,
		Sleep: func(ctx context.Context, _ time.Duration) bool { return sleep(ctx, time.Millisecond) },
	}
}

// start begins to send; the sinks end with the test, before the log does.
func start(t testing.TB, o Options, sinks ...Config) *Sinks {
	t.Helper()
	s, err := Start(o, sinks)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// lines are those of the log, as they stand in its files.
func (l *testLog) lines(t testing.TB) []string {
	t.Helper()
	segments, err := audit.Segments(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, s := range segments {
		f, err := os.Open(filepath.Join(l.dir, s.Name))
		if err != nil {
			t.Fatal(err)
		}
		for in := bufio.NewScanner(f); in.Scan(); {
			all = append(all, in.Text())
		}
		f.Close()
	}
	return all
}

// received is what a receiver has taken: batches by their id, in the order in which they came first.
type received struct {
	mu     sync.Mutex
	ids    []string
	bodies map[string]string
	again  int // batches that came more than once
	wrong  []string
	news   chan struct{}
}

func newReceived() *received {
	return &received{bodies: map[string]string{}, news: make(chan struct{}, 1)}
}

func (r *received) take(id, body string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if was, ok := r.bodies[id]; !ok {
		r.ids = append(r.ids, id)
		r.bodies[id] = body
	} else if r.again++; was != body {
		r.wrong = append(r.wrong, "other records under the id "+id)
	}
	select {
	case r.news <- struct{}{}:
	default:
	}
}

func (r *received) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, id := range r.ids {
		all = append(all, strings.Split(strings.TrimSuffix(r.bodies[id], "\n"), "\n")...)
	}
	return all
}

// wait returns when n records have come.
func (r *received) wait(t testing.TB, n int) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for len(r.lines()) < n {
		select {
		case <-r.news:
		case <-limit.C:
			t.Fatalf("%d of %d records have come", len(r.lines()), n)
		}
	}
}

// want fails unless what came is the log, in its order.
func (r *received) want(t testing.TB, lines []string) {
	t.Helper()
	got := r.lines()
	for i := range min(len(got), len(lines)) {
		if got[i] != lines[i] {
			t.Fatalf("record %d is\n%s, want\n%s", i, got[i], lines[i])
		}
	}
	if len(got) != len(lines) {
		t.Errorf("%d records have come, %d are in the log", len(got), len(lines))
	}
	for _, w := range r.wrong {
		t.Error(w)
	}
}

// eventually waits for what nothing announces.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatal("not so: " + what)
		}
	}
}
