package verify

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"iap/internal/audit"
)

// TestAU01TenThousandMixedRequestsAreEachRecordedOnce has many at once be allowed, denied, fail and log in, over many
// segments that are signed meanwhile. What the callers counted is what the proven log says.
func TestAU01TenThousandMixedRequestsAreEachRecordedOnce(t *testing.T) {
	const workers, each = 20, 500
	dir, relay := t.TempDir(), newRelay()
	o := relay.options(t, dir)
	o.SegmentBytes = 256 << 10
	l, err := audit.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	var allowed, denied, logins atomic.Int64
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range each {
				e := audit.Event{Kind: audit.KindDecision, Decision: audit.Allow, Request: fmt.Sprintf("%d-%d", w, i), Source: fmt.Sprintf("192.0.2.%d:99", w)}
				if i%100 == 0 {
					logins.Add(1)
					must(t, l.Record(context.Background(), audit.Event{Kind: audit.KindLogin, Decision: audit.Allow}))
				}
				if i%4 == 0 {
					denied.Add(1)
					e.Decision, e.Reason = audit.Deny, "no_grant"
					must(t, l.Denied(context.Background(), e))
					continue
				}
				allowed.Add(1)
				must(t, l.Record(context.Background(), e))
				must(t, l.Record(context.Background(), audit.Event{Kind: audit.KindOutcome, Request: e.Request, Ended: []string{"done", "upstream_reset", "canceled"}[i%3]}))
			}
		})
	}
	all.Wait()
	must(t, l.Close())
	wantOK(t, verified(t, Options{Dir: dir, Anchors: relay.anchor()}))
	decisions, outcomes, refusals, loggedIn := map[string]int{}, map[string]int{}, int64(0), int64(0)
	for e, err := range audit.Read(dir) {
		must(t, err)
		switch {
		case e.Kind == audit.KindLogin:
			loggedIn++
		case e.Kind == audit.KindDecision && e.Decision == audit.Allow:
			decisions[e.Request]++
		case e.Kind == audit.KindDecision:
			refusals++
		case e.Kind == audit.KindDeniedCount:
			n, err := strconv.ParseInt(e.Detail["decision/no_grant"], 10, 64)
			must(t, err)
			refusals += n
		case e.Kind == audit.KindOutcome:
			outcomes[e.Request]++
		}
	}
	if int64(len(decisions)) != allowed.Load() || len(outcomes) != len(decisions) || refusals != denied.Load() || loggedIn != logins.Load() {
		t.Errorf("%d decisions, %d outcomes, %d refusals, %d logins; done were %d, %d and %d", len(decisions), len(outcomes), refusals, loggedIn, allowed.Load(), denied.Load(), logins.Load())
	}
	for request, n := range decisions {
		if n != 1 || outcomes[request] != 1 {
			t.Errorf("%s has %d decisions and %d outcomes", request, n, outcomes[request])
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}
