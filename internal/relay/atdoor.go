package relay

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"iap/internal/guard"
	"iap/tunnel"
)

// doorRequests are the requests at the front door that run. They have no session
// that could be ended: what ends with a credential, or with the relay's knowledge of
// who was revoked, ends here.
type doorRequests struct {
	mu  sync.Mutex
	all map[*doorRequest]struct{} // guarded by mu
}

type doorRequest struct {
	who *doorCaller
	end context.CancelCauseFunc
}

// add enters a request; the func it returns takes it out.
func (d *doorRequests) add(who *doorCaller, end context.CancelCauseFunc) (leave func()) {
	one := &doorRequest{who, end}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == nil {
		d.all = map[*doorRequest]struct{}{}
	}
	d.all[one] = struct{}{}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.all, one)
	}
}

// end ends those for which why has a reason.
func (d *doorRequests) end(why func(*doorCaller) *guard.Ended) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for one := range d.all {
		if ended := why(one.who); ended != nil {
			one.end(ended)
		}
	}
}

// expireDoors ends the answers whose credential's time is over, by the wall clock.
func (r *Relay) expireDoors(now time.Time) {
	r.doors.end(func(who *doorCaller) *guard.Ended {
		if now.Before(who.expires) {
			return nil
		}
		return who.expired()
	})
}

const (
	blindMessage = "the relay has lost its database for so long that it cannot know who was revoked"
	blindRetry   = 10 * time.Second
)

// refuseBlind answers a request that nobody can be sure about.
func (r *Relay) refuseBlind(w http.ResponseWriter, q *http.Request) {
	w.Header().Set("Retry-After", strconv.Itoa(int(blindRetry/time.Second)))
	refuseAtDoor(w, q, http.StatusServiceUnavailable, tunnel.CodeStateUnavailable.String(), blindMessage)
}
