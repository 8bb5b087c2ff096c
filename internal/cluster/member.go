package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"iap/internal/state"
)

const (
	beatEvery = 10 * time.Second // 100 relays make 10 writes a second
	beatLife  = 30 * time.Second // two beats may be lost, and clocks may differ by seconds
	beatRetry = time.Second      // after one that failed
	beatWait  = 5 * time.Second

	// MaxMembers bounds how many relays are listed and asked.
	MaxMembers = 500

	maxAddresses = 16 // told to clients

	keyMember = "relay/"
)

// Member is one relay as it describes itself.
type Member struct {
	Instance string    `json:"instance"`
	Run      string    `json:"run"`               // of the process: tells two under one id apart
	Address  string    `json:"address,omitempty"` // where it itself is reached, if that is not the name of all
	Version  string    `json:"version"`
	Policy   string    `json:"policy"` // revision of the policy it has in force
	Started  time.Time `json:"started"`
	Seen     time.Time `json:"seen"` // by its own clock, when it said so
}

// Options are what a Cluster needs.
type Options struct {
	Store    state.Store
	Instance string
	Now      func() time.Time // nil: time.Now
	Logger   *slog.Logger     // nil: silent
	// Describe fills in what the relay says of itself; the cluster adds the rest.
	Describe func() Member
	// Answer answers a question of another relay. It may be called by several goroutines at once.
	Answer func(ctx context.Context, kind string, question json.RawMessage) (any, error)
}

// Cluster is a relay's part in it. Run must run for the others to know of it.
type Cluster struct {
	o   Options
	run string

	mu      sync.Mutex
	version int64                // guarded by mu; of our own entry, 0 before the first
	twin    bool                 // guarded by mu; another process goes by our id
	known   []string             // guarded by mu; addresses of all, as of the last beat
	mute    map[string]time.Time // guarded by mu; relays that did not answer, and when they had been seen last
}

// New makes the relay's part.
func New(o Options) *Cluster {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Describe == nil {
		o.Describe = func() Member { return Member{} }
	}
	return &Cluster{o: o, run: rand.Text()[:12]}
}

// Instance is the relay's id.
func (c *Cluster) Instance() string { return c.o.Instance }

// Run beats and answers until ctx ends, then takes the relay off the list.
func (c *Cluster) Run(ctx context.Context) {
	var both sync.WaitGroup
	both.Go(func() { c.answerAll(ctx) })
	both.Go(func() { c.beatAll(ctx) })
	both.Go(func() { c.welcome(ctx) })
	both.Wait()
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), beatWait)
	defer cancel()
	c.mu.Lock()
	version := c.version
	c.mu.Unlock()
	if version > 0 {
		_ = c.o.Store.Delete(leaving, keyMember+c.o.Instance, version) // it expires by itself
	}
}

func (c *Cluster) beatAll(ctx context.Context) {
	failing := false
	for {
		pause := beatEvery
		if err := c.Beat(ctx); err != nil && ctx.Err() == nil {
			if !failing {
				c.o.Logger.Warn("this relay cannot tell the others that it is there", "instance", c.o.Instance, "error", err)
			}
			failing, pause = true, beatRetry
		} else {
			failing = false
			c.noteAddresses(ctx)
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// welcome notes the address of a relay that comes, and does not wait for the next beat.
func (c *Cluster) welcome(ctx context.Context) {
	runs := map[string]bool{}
	Follow(ctx, c.o.Store, keyMember, func([]state.Item) { c.noteAddresses(ctx) }, func(item state.Item, deleted bool) {
		var m Member
		if !deleted && json.Unmarshal(item.Value, &m) == nil && !runs[m.Run] {
			if len(runs) >= MaxMembers {
				clear(runs)
			}
			runs[m.Run] = true
			c.noteAddresses(ctx)
		}
	})
}

func (c *Cluster) noteAddresses(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, beatWait)
	defer cancel()
	all, err := c.Members(ctx)
	if err != nil {
		return // those known before will do
	}
	var known []string
	for _, m := range all {
		if m.Address != "" && len(known) < maxAddresses {
			known = append(known, m.Address)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = known
}

// Addresses are where the relays that live are reached one by one, at most 16.
func (c *Cluster) Addresses() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known
}

// Beat says that the relay is there, and what it is.
func (c *Cluster) Beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, beatWait)
	defer cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.o.Now().UTC()
	m := c.o.Describe()
	m.Instance, m.Run, m.Seen = c.o.Instance, c.run, now
	value, err := json.Marshal(m)
	if err != nil {
		return err
	}
	key := keyMember + c.o.Instance
	next, err := c.o.Store.Swap(ctx, key, c.version, value, now.Add(beatLife))
	if !errors.Is(err, state.ErrConflict) {
		if err == nil {
			c.version = next
		}
		return err
	}
	item, err := c.o.Store.Get(ctx, key)
	if errors.Is(err, state.ErrNotFound) { // we were away for longer than our entry lasts
		c.version, c.twin = 0, false
		return nil // the next beat enters us anew
	}
	if err != nil {
		return err
	}
	var other Member
	_ = json.Unmarshal(item.Value, &other) // what cannot be read is not ours either
	if other.Run != c.run && c.version != 0 {
		if !c.twin {
			c.o.Logger.Error("another process runs under this relay's instance id: give each relay a data folder of its own",
				"instance", c.o.Instance, "other_started", other.Started)
		}
		c.twin = true
		return nil
	}
	// What a process before us has left, or a beat of ours whose answer was lost.
	if next, err = c.o.Store.Swap(ctx, key, item.Version, value, now.Add(beatLife)); err == nil {
		c.version = next
	}
	return err
}

// Problem is what keeps the relay from being one of several, or "".
func (c *Cluster) Problem() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.twin {
		return "instance_id_in_use"
	}
	return ""
}

// Members lists the relays that live, by id, at most MaxMembers.
func (c *Cluster) Members(ctx context.Context) ([]Member, error) {
	var all []Member
	items, err := c.o.Store.List(ctx, keyMember, "", MaxMembers)
	if err != nil {
		return nil, err
	}
	for _, item := range items {
		m := Member{}
		if err := json.Unmarshal(item.Value, &m); err != nil {
			return nil, fmt.Errorf("read %s: %w", item.Key, err)
		}
		m.Instance = strings.TrimPrefix(item.Key, keyMember)
		all = append(all, m)
	}
	return all, nil
}

// sleep waits, and reports whether it was not cut short.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
