package usage

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"iap/internal/state"
)

// FlushEvery is how often what was added goes to the store, and so how much of the statistics a crash may cost.
const FlushEvery = 10 * time.Second

const (
	flushWait  = 5 * time.Second // for one write of everything: queries wait behind it
	pruneEvery = time.Hour       // items leave by their expiry; this finds those of a time when more was kept

	maxLate    = 5 * time.Minute // an entry may be about this long ago
	maxMinutes = 16              // of entries between two writes; a clock that jumps makes many
	maxJoined  = 8192            // principals whose groups are remembered between two writes
	maxPending = 1 << 15         // series that wait for the store, half a KiB each
)

// Options are what a Book needs.
type Options struct {
	Store  state.Store
	Holder string           // this relay's name, the same after a restart and no other relay's
	Retain time.Duration    // how long days are kept; 0: DefaultRetain
	Now    func() time.Time // nil: time.Now
	Logger *slog.Logger     // nil: silent
}

// Book counts for one relay. It is safe for concurrent use.
type Book struct {
	store  state.Store
	holder string
	retain time.Duration
	now    func() time.Time
	log    *slog.Logger
	run    string // of this process, in the names of its writes

	mu     sync.Mutex
	fresh  map[int64]*table        // guarded by mu; since the last write, by minute (Unix seconds)
	latest *table                  // guarded by mu; the one of fresh that was made last
	joined map[string]joinedGroups // guarded by mu, by principal

	// turn holds one value. Whoever has taken it owns what follows: one write or one query at a time.
	turn    chan struct{}
	pending map[itemKey]*delta
	held    map[itemKey]*held
	writes  int64
	away    bool // the last write failed
	shrunk  bool // details were given up since

	closing chan struct{}
	once    sync.Once
	cancel  context.CancelFunc // of the loop's calls of the store
	stopped sync.WaitGroup
}

// joinedGroups spares joining the same groups for each request.
type joinedGroups struct {
	list []string
	text string
}

// Open starts a book. It reads nothing: what earlier runs have written is found when it is needed. Close must be called.
func Open(o Options) (*Book, error) {
	if o.Store == nil || o.Holder == "" {
		return nil, errors.New("open usage: a store and the holder's name are needed")
	}
	if o.Retain <= 0 {
		o.Retain = DefaultRetain
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	b := &Book{
		store: o.Store, holder: o.Holder, retain: o.Retain, now: o.Now, log: o.Logger, run: rand.Text()[:12],
		fresh: make(map[int64]*table), joined: make(map[string]joinedGroups),
		turn: make(chan struct{}, 1), pending: make(map[itemKey]*delta), held: make(map[itemKey]*held), closing: make(chan struct{}),
	}
	b.turn <- struct{}{}
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	b.stopped.Go(func() { b.loop(ctx) })
	return b, nil
}

// Add counts a request. It waits for nothing but other calls of Add.
func (b *Book) Add(e Entry) {
	at := b.timeOf(e.Time)
	b.mu.Lock()
	defer b.mu.Unlock()
	s := series{
		principal: name(e.Principal), groups: b.groupsOf(&e), resource: name(e.Resource), model: name(e.Model),
		action: name(e.Action), grant: name(e.Grant),
	}
	b.freshTable(at).row(s).count(&e)
}

// timeOf is the minute that an entry counts in.
func (b *Book) timeOf(t time.Time) int64 {
	now := b.now()
	if t.After(now) || now.Sub(t) > maxLate {
		t = now
	}
	return Minute.start(t).Unix()
}

// groupsOf joins the groups of an entry. b.mu is held.
func (b *Book) groupsOf(e *Entry) string {
	if len(e.Groups) == 0 {
		return None
	}
	known, ok := b.joined[e.Principal]
	if ok && slices.Equal(known.list, e.Groups) {
		return known.text
	}
	text := joinGroups(e.Groups)
	if ok || len(b.joined) < maxJoined {
		b.joined[e.Principal] = joinedGroups{slices.Clone(e.Groups), text}
	}
	return text
}

// freshTable is what entries of a minute are added to. b.mu is held.
func (b *Book) freshTable(minute int64) *table {
	t := b.fresh[minute]
	switch {
	case t != nil:
		return t
	case len(b.fresh) >= maxMinutes:
		return b.latest
	}
	t = newTable(maxFresh)
	b.fresh[minute], b.latest = t, t
	return t
}

// loop writes until the book closes.
func (b *Book) loop(ctx context.Context) {
	tick := time.NewTicker(FlushEvery)
	defer tick.Stop()
	var pruned time.Time
	for {
		select {
		case <-b.closing:
			return
		case <-tick.C:
		}
		if err := b.Flush(ctx); err == nil && b.now().Sub(pruned).Abs() >= pruneEvery {
			pruned = b.now()
			b.prune(ctx)
		}
	}
}

// Flush writes what was added. What cannot be written stays, and is written later.
func (b *Book) Flush(ctx context.Context) error {
	if err := b.take(ctx); err != nil {
		return err
	}
	defer b.give()
	return b.flush(ctx)
}

// take waits for the turn.
func (b *Book) take(ctx context.Context) error {
	select {
	case <-b.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *Book) give() { b.turn <- struct{}{} }

// Close writes what was added, as long as ctx lasts. What is added later is lost.
func (b *Book) Close(ctx context.Context) error {
	var err error
	b.once.Do(func() {
		stop := context.AfterFunc(ctx, b.cancel)
		defer stop()
		close(b.closing)
		b.stopped.Wait()
		err = b.Flush(ctx)
		b.cancel()
	})
	return err
}
