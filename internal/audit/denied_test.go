package audit

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func refusal(source string) Event {
	return Event{Kind: KindLogin, Decision: Deny, Reason: "token_expired", Source: source}
}

func deny(t *testing.T, l *Log, e Event, n int) {
	t.Helper()
	for range n {
		if err := l.Denied(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
}

// counted adds up full and counted records.
func counted(events []Event) (full int, count int64) {
	for _, e := range events {
		switch {
		case e.Kind == KindDeniedCount:
			count += e.Count
		case e.Decision == Deny:
			full++
		}
	}
	return full, count
}

func TestTenRefusalsOfASourceAreWrittenTheRestIsCounted(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := openTest(t, Options{Dir: dir})
		deny(t, l, refusal("192.0.2.1"), 25)
		deny(t, l, Event{Kind: KindDecision, Decision: Deny, Reason: "no_grant", Source: "192.0.2.1"}, 5)
		deny(t, l, refusal("192.0.2.2"), 3)
		deny(t, l, Event{Kind: KindDecision, Decision: Deny, Reason: "no_grant", Source: "192.0.2.1", Principal: "corp/a"}, 11)
		time.Sleep(deniedEvery + time.Second)
		synctest.Wait()
		counts := map[string]Event{}
		events := readAll(t, dir)
		for _, e := range ofKind(events, KindDeniedCount) {
			counts[e.Source+" "+e.Principal] = e
		}
		if full, _ := counted(events); full != 10+3+10 || len(counts) != 2 {
			t.Errorf("%d full records, counts %+v", full, counts)
		}
		if e := counts["192.0.2.1 "]; e.Count != 20 || e.Detail["login/token_expired"] != "15" || e.Detail["decision/no_grant"] != "5" {
			t.Errorf("count of the source: %+v", e)
		}
		if e := counts["192.0.2.1 corp/a"]; e.Count != 1 {
			t.Errorf("count of the principal: %+v", e)
		}
		deny(t, l, refusal("192.0.2.1"), 12) // a new minute
		l.Close()
		if full, count := counted(readAll(t, dir)); full != 33 || count != 23 {
			t.Errorf("%d full, %d counted, want 33 and 23", full, count)
		}
	})
}

func TestAU11FloodOfRefusalsStaysSmallAndExact(t *testing.T) {
	l := openTest(t, Options{})
	const workers, each = 8, 25_000
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range each {
				if err := l.Denied(t.Context(), refusal("2001:db8:0:"+strconv.FormatInt(int64(w*each+i)%5000, 16)+"::1")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if n := len(l.denials.sources); n > maxDeniedSources+1 {
		t.Errorf("%d sources are held", n)
	}
	l.Close()
	if full, count := counted(readAll(t, l.dir)); full > maxDeniedFull || int64(full)+count != workers*each {
		t.Errorf("%d full and %d counted of %d", full, count, workers*each)
	}
	if info, err := os.Stat(lastSegment(t, l.dir)); err != nil || info.Size() > 1<<20 {
		t.Errorf("the log grew to %d bytes, %v", info.Size(), err)
	}
}

func TestRefusalsOnAFullDiskAreCountedUntilThereIsSpace(t *testing.T) {
	l, d := openFaulty(t, Options{})
	deny(t, l, refusal("192.0.2.1"), 2)
	d.set(func(d *faultyDisk) { d.write = syscall.EIO })
	deny(t, l, refusal("192.0.2.1"), 7)
	l.countDenials(false)
	deny(t, l, refusal("192.0.2.1"), 7)
	d.set(func(d *faultyDisk) { d.write = nil })
	l.countDenials(false)
	l.Close()
	if full, count := counted(readAll(t, l.dir)); full != 2 || count != 14 {
		t.Errorf("%d full, %d counted, want 2 and 14", full, count)
	}
}

func TestSourceIsAnAddressNotAPort(t *testing.T) {
	for source, want := range map[string]string{
		"192.0.2.1:51234":          "192.0.2.1",
		"192.0.2.1":                "192.0.2.1",
		"[::ffff:192.0.2.1]:443":   "192.0.2.1",
		"[2001:db8:1:2:3:4::5]:80": "2001:db8:1:2::/64",
		"2001:db8:1:2:9::":         "2001:db8:1:2::/64",
		"fe80::1%eth0":             "fe80::/64",
		"local:root":               "local:root",
		"":                         "",
	} {
		if got := sourceOf(&Event{Source: source, Principal: "p"}); got != (deniedSource{source: want, principal: "p"}) {
			t.Errorf("%q counts as %+v, want %q", source, got, want)
		}
	}
}

func TestReasonsOfACountAreBounded(t *testing.T) {
	l := openTest(t, Options{})
	for i := range 100 {
		e := refusal("192.0.2.1")
		e.Reason = fmt.Sprint("reason", i)
		deny(t, l, e, 1)
	}
	l.Close()
	counts := ofKind(readAll(t, l.dir), KindDeniedCount)
	if len(counts) != 1 || counts[0].Count != 90 || len(counts[0].Detail) > maxDeniedReasons+2 || counts[0].Detail["other"] != "82" {
		t.Errorf("counts: %+v", counts)
	}
}
