package e2e

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

const (
	crashRounds  = 10
	crashWorkers = 8
	crashLoad    = 25 // requests that reach the upstream between two crashes
)

// Whenever the relay dies, what it sent on is on record.
func TestNoRequestGoesUpstreamWithoutARecordHoweverOftenTheRelayIsKilled(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, _ := startDemo(t, 2000)
	s.startAgent(map[string]string{"phi3=model": up.url})
	web := newCaller(t, s.loggedIn("alice").connect("phi3").url())

	var stop atomic.Bool
	var group sync.WaitGroup
	for worker := range crashWorkers {
		group.Go(func() {
			for n := 0; !stop.Load(); n++ {
				body := chatBody("demo", fmt.Sprintf("request %d of worker %d.", n, worker), n%2 == 0, 4)
				if got, err := web.tryAsk("POST", "/v1/chat/completions", body); err == nil && got.status == 503 {
					web.http.CloseIdleConnections() // a relay that has just come back: its agent follows
				}
			}
		})
	}
	for range crashRounds {
		seen := len(up.requests())
		eventually(t, "requests reach the upstream again", func() bool { return len(up.requests()) >= seen+crashLoad })
		s.relay.kill()
		s.startRelay()
	}
	stop.Store(true)
	group.Wait()

	seen := up.requests()
	if len(seen) < crashRounds*crashLoad {
		t.Errorf("the upstream saw %d requests", len(seen))
	}
	asked := map[string]bool{}
	for _, q := range seen {
		if asked[q.body] {
			t.Errorf("the upstream saw twice: %s", q.body)
		}
		asked[q.body] = true
	}
	checkAudit(t, s.awaitSettled(), seen)
}
