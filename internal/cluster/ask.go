package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"iap/internal/state"
)

const (
	// AskWait is how long the others have to answer. A relay that has died is on the list for up to half a minute, and each
	// question waits this long for it.
	AskWait = 1500 * time.Millisecond

	askLife    = 30 * time.Second
	answerWait = 5 * time.Second // for the work on one question, and its answer's way
	answering  = 4               // questions that are worked on at once
	maxDone    = 4096            // questions remembered, so that none is worked on twice

	keyAsk    = "ask/"
	keyAnswer = "answer/"
)

// question is what is asked.
type question struct {
	From string          `json:"from"`
	Kind string          `json:"kind"`
	Body json.RawMessage `json:"body,omitempty"`
}

// Answer is what one relay says to a question.
type Answer struct {
	Relay string          `json:"relay"`
	Body  json.RawMessage `json:"body,omitempty"`
	Error string          `json:"error,omitempty"` // in words, for the log
}

// Ask puts a question to every other relay and gathers what they answer. silent names those that did not answer in time,
// or that could not. The error is the state's: nobody was asked.
func (c *Cluster) Ask(ctx context.Context, kind string, body any) (answers []Answer, silent []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, AskWait)
	defer cancel()
	members, err := c.Members(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("ask the other relays: %w", err)
	}
	awaited := map[string]time.Time{}
	for _, m := range members {
		switch {
		case m.Instance == c.o.Instance:
		case c.isMute(m):
			silent = append(silent, m.Instance)
		default:
			awaited[m.Instance] = m.Seen
		}
	}
	if len(awaited)+len(silent) == 0 {
		return nil, nil, nil
	}
	q := question{From: c.o.Instance, Kind: kind}
	if q.Body, err = json.Marshal(body); err != nil {
		return nil, nil, err
	}
	value, err := json.Marshal(q)
	if err != nil {
		return nil, nil, err
	}
	id := rand.Text()
	heard, err := c.o.Store.Watch(ctx, keyAnswer+id+"/")
	if err != nil {
		return nil, nil, fmt.Errorf("ask the other relays: %w", err)
	}
	if _, err := c.o.Store.Swap(ctx, keyAsk+id, 0, value, c.o.Now().Add(askLife)); err != nil {
		return nil, nil, fmt.Errorf("ask the other relays: %w", err)
	}
	if len(awaited) == 0 { // they are asked all the same
		return nil, silent, nil
	}
	for change := range heard {
		var a Answer
		if change.Resync || json.Unmarshal(change.Item.Value, &a) != nil {
			continue // whoever is missing is named
		}
		a.Relay = change.Item.Key[strings.LastIndexByte(change.Item.Key, '/')+1:]
		if awaited[a.Relay].IsZero() {
			continue
		}
		if a.Error != "" {
			c.o.Logger.Warn("another relay could not answer", "relay", a.Relay, "asked", kind, "error", a.Error)
		} else {
			answers = append(answers, a)
			delete(awaited, a.Relay)
		}
		if len(awaited) == 0 {
			break
		}
	}
	for relay, seen := range awaited {
		silent = append(silent, relay)
		c.noteMute(relay, seen)
	}
	return answers, silent, nil
}

// isMute reports whether a relay did not answer before and has not been heard of since: it has died, and nobody waits for it
// again and again until it is off the list.
func (c *Cluster) isMute(m Member) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen, known := c.mute[m.Instance]
	return known && !m.Seen.After(seen)
}

func (c *Cluster) noteMute(relay string, seen time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mute == nil || len(c.mute) >= MaxMembers {
		c.mute = map[string]time.Time{}
	}
	c.mute[relay] = seen
}

// asked remembers which questions were taken up.
type asked struct {
	mu   sync.Mutex
	done map[string]time.Time // guarded by mu; by key, when
}

func (a *asked) take(key string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.done[key]; known {
		return false
	}
	for old, at := range a.done {
		if len(a.done) >= maxDone || now.Sub(at) > 2*askLife {
			delete(a.done, old)
		}
	}
	if a.done == nil {
		a.done = map[string]time.Time{}
	}
	a.done[key] = now
	return true
}

// answerAll answers what others ask, until ctx ends.
func (c *Cluster) answerAll(ctx context.Context) {
	var known asked
	var workers sync.WaitGroup
	defer workers.Wait()
	places := make(chan struct{}, answering)
	take := func(item state.Item, deleted bool) {
		var q question
		if deleted || json.Unmarshal(item.Value, &q) != nil || q.From == c.o.Instance || !known.take(item.Key, c.o.Now()) {
			return
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		workers.Go(func() {
			defer func() { <-places }()
			c.answer(ctx, strings.TrimPrefix(item.Key, keyAsk), q)
		})
	}
	Follow(ctx, c.o.Store, keyAsk, func(items []state.Item) {
		for _, item := range items {
			take(item, false)
		}
	}, take)
}

func (c *Cluster) answer(ctx context.Context, id string, q question) {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	a := Answer{Relay: c.o.Instance}
	body, err := c.o.Answer(ctx, q.Kind, q.Body)
	if err == nil {
		a.Body, err = json.Marshal(body)
	}
	if err != nil {
		a.Body, a.Error = nil, err.Error()
	}
	value, err := json.Marshal(a)
	if err == nil && len(value) > state.MaxValue {
		value, err = json.Marshal(Answer{Relay: c.o.Instance, Error: fmt.Sprintf("an answer of %d bytes is too large", len(value))})
	}
	if err == nil {
		_, err = c.o.Store.Swap(ctx, keyAnswer+id+"/"+c.o.Instance, 0, value, c.o.Now().Add(askLife))
	}
	if err != nil && !errors.Is(err, state.ErrConflict) && ctx.Err() == nil {
		c.o.Logger.Warn("another relay's question could not be answered", "from", q.From, "asked", q.Kind, "error", err)
	}
}
