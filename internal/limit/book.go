package limit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"iap/internal/state"
)

// Sizes and times.
const (
	leaseTime   = time.Minute            // a relay that died keeps its slots from others no longer than this
	renewBefore = 40 * time.Second       // before its end: a store may be away for a while before a lease is lost
	idleAfter   = 5 * time.Second        // without a request, what is leased goes back, and the counter out of memory
	tickEvery   = time.Second            // settled amounts are written within about this time
	refusalAge  = 500 * time.Millisecond // a refusal rests on a look at the store no older than this
	storeWait   = 3 * time.Second        // for one round of reads and writes
	expirySlack = time.Minute            // clocks differ

	swapTries    = 8  // against other relays, in one round
	reserveTries = 20 // rounds that one request waits for, each lost to others of this relay
	poolShare    = 8  // of what is free, the part that may be leased ahead of need

	minOutput    = 16  // tokens of each answer below which there is no point in one
	usefulOutput = 512 // tokens of each answer worth waiting for where the caller names no number
	extendChunk  = 64  // tokens by which a running answer's reservation grows

	maxCounters = 1 << 16         // in memory; 1-2 KiB each
	maxAmount   = int64(1) << 50  // of one request or limit
	maxSum      = int64(1) << 60  // of what the store may say
	maxCharges  = 4 * buckets     // of one counter in the store
	maxRetry    = 24 * time.Hour  // told to a client
	minRetry    = time.Second     // likewise
	endRetry    = 2 * time.Second // when something has to end first, and nobody knows when
	noticeQueue = 64              // notices not yet taken; more are dropped
)

// ErrUnavailable says that a limit can be neither granted nor denied: the store is away, or the book closed. Nothing is
// granted on it.
var ErrUnavailable = errors.New("limits are unavailable")

// Options are what a Book needs.
type Options struct {
	Store  state.Store
	Holder string           // this relay's name, the same after a restart and no other relay's
	Now    func() time.Time // nil: time.Now
	Logger *slog.Logger     // nil: silent
	// Notice is called by one goroutine, outside all locks; it must return. Notices that wait for it are bounded in number,
	// further ones are dropped. nil: nobody is told.
	Notice func(Notice)
}

// Book keeps this relay's part of all counters. It is safe for concurrent use.
type Book struct {
	store   state.Store
	me      lease // Holder and Generation
	now     func() time.Time
	log     *slog.Logger
	started time.Time

	mu       sync.Mutex
	counters map[counterKey]*counter // guarded by mu
	elapsed  time.Duration           // guarded by mu; since started, never less than it was
	next     *round                  // guarded by mu
	closed   bool                    // guarded by mu
	away     bool                    // owned by run: the last round failed

	kick    chan struct{} // one value: there is something for the next round
	closing chan struct{} // closed by Close
	notices chan Notice
	cancel  context.CancelFunc // ends the store's calls
	stopped sync.WaitGroup
}

// Open starts a book. What an earlier run of the same holder had leased and not returned is booked as used, each counter
// when it is first needed. Close must be called.
func Open(ctx context.Context, o Options) (*Book, error) {
	if o.Store == nil || o.Holder == "" {
		return nil, errors.New("open limits: a store and the holder's name are needed")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	number, err := nextGeneration(ctx, o.Store, o.Holder)
	if err != nil {
		return nil, fmt.Errorf("open limits: %w", err)
	}
	b := &Book{
		store: o.Store, me: lease{Holder: o.Holder, Generation: number}, now: o.Now, log: o.Logger, started: o.Now(),
		counters: make(map[counterKey]*counter), next: newRound(),
		kick: make(chan struct{}, 1), closing: make(chan struct{}), notices: make(chan Notice, noticeQueue),
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b.cancel = cancel
	b.stopped.Go(func() { b.run(running) })
	if o.Notice != nil {
		b.stopped.Go(func() {
			for n := range b.notices {
				o.Notice(n)
			}
		})
	}
	return b, nil
}

// nextGeneration counts this start of the holder, so that leases of earlier ones can be told from ours.
func nextGeneration(ctx context.Context, s state.Store, holder string) (int64, error) {
	key := holderPrefix + digest(holder)
	for range swapTries {
		g := generation{Holder: holder}
		item, err := s.Get(ctx, key)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return 0, err
		}
		if err == nil {
			if err := json.Unmarshal(item.Value, &g); err != nil {
				return 0, fmt.Errorf("read how often %q has started: %w", holder, err)
			}
		}
		g.Generation++
		value, err := json.Marshal(g)
		if err != nil {
			return 0, err
		}
		_, err = s.Swap(ctx, key, item.Version, value, time.Time{})
		if !errors.Is(err, state.ErrConflict) {
			return g.Generation, err
		}
	}
	return 0, fmt.Errorf("count the starts of %q: %w", holder, state.ErrConflict)
}

// time returns the book's time, Unix nanoseconds: it begins at the clock's and from there on never goes back, however
// the clock is set. b.mu is held.
func (b *Book) time() int64 {
	b.elapsed = max(b.elapsed, b.now().Sub(b.started)) // by the monotonic reading where the clock has one
	return b.started.UnixNano() + int64(b.elapsed)
}

// wall returns what clocks show at a time of the book.
func (b *Book) wall(at, now int64) time.Time {
	return b.now().Add(time.Duration(at - now)).UTC()
}

// counter returns the counter of a key, a new one if need be; nil if there are too many. b.mu is held.
func (b *Book) counter(key counterKey, now int64) *counter {
	if c := b.counters[key]; c != nil {
		return c
	}
	if len(b.counters) >= maxCounters {
		b.sweep(now)
		if len(b.counters) >= maxCounters {
			return nil
		}
	}
	c := &counter{key: key, id: key.id(), width: bucketWidth(key.window), last: now}
	b.counters[key] = c
	return c
}

// sweep drops what is idle. b.mu is held.
func (b *Book) sweep(now int64) {
	for key, c := range b.counters {
		if c.idle(now) {
			delete(b.counters, key)
		}
	}
}

// Flush writes what is settled and returns leases that nobody uses, then waits for it.
func (b *Book) Flush(ctx context.Context) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return errClosed
	}
	r := b.enqueueBusy()
	b.mu.Unlock()
	b.wake()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errClosed = fmt.Errorf("%w: they are closed", ErrUnavailable)

// Close writes what is settled and returns what is not used, as long as ctx lasts. Open reservations stay leased; they
// count as used at the next Open. Reserve refuses from here on.
func (b *Book) Close(ctx context.Context) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		b.stopped.Wait()
		return nil
	}
	b.closed = true
	last := b.enqueueBusy()
	b.mu.Unlock()
	stop := context.AfterFunc(ctx, b.cancel)
	close(b.closing)
	b.stopped.Wait()
	stop()
	b.cancel()
	return last.err
}
