package limit_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"iap/internal/limit"
	"iap/internal/state"
)

// deaf is an empty store that, once told, answers nothing until it is let go, whatever becomes of the context: a
// database file that another process has locked.
type deaf struct {
	state.Store
	from chan struct{} // closed: deaf from here on
	till chan struct{} // closed: let go
}

func (d deaf) wait() {
	select {
	case <-d.from:
		<-d.till
	default:
	}
}

func (d deaf) Get(context.Context, string) (state.Item, error) {
	d.wait()
	return state.Item{}, state.ErrNotFound
}

func (d deaf) Swap(context.Context, string, int64, []byte, time.Time) (int64, error) { return 1, nil }

func (d deaf) SwapAll(_ context.Context, writes []state.Write) ([]int64, error) {
	d.wait()
	versions := make([]int64, len(writes))
	for i := range versions {
		versions[i] = 1
	}
	return versions, nil
}

func TestNobodyWaitsLongForADeafStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := deaf{from: make(chan struct{}), till: make(chan struct{})}
		b, err := limit.Open(t.Context(), limit.Options{Store: s, Holder: "relay-1"})
		if err != nil {
			t.Fatal(err)
		}
		close(s.from)
		begun := time.Now() // the bubble's clock
		if r, err := b.Reserve(t.Context(), limit.Ask{Rules: []limit.Rule{engineers(perDay(10))}, Input: 1}); !errors.Is(err, limit.ErrUnavailable) {
			t.Errorf("reserve: %v, %v", r, err)
		}
		if waited := time.Since(begun); waited > 5*time.Second {
			t.Errorf("waited %s", waited)
		}
		close(s.till)
		_ = b.Close(t.Context()) // what it holds or returns is not this test's
	})
}
