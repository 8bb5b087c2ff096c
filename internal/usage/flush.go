package usage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"iap/internal/state"
)

const (
	batchItems = 3 * shards // of one commit: usually all that there is, so that all three levels go together
	swapRounds = 4          // for items that somebody else has changed
	prunePage  = 32
)

// delta is what an item of the store does not hold yet.
type delta struct {
	table *table
	tried string // the write that was to add table, of which no answer came; "" if none
	later *table // since then; nil if nothing
}

// held is an item as it is in the store.
type held struct {
	version int64
	last    string // the write that made it
	table   *table
}

// flush writes everything. The turn is taken.
func (b *Book) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushWait)
	defer cancel()
	b.collect()
	err := b.write(ctx)
	if err != nil {
		b.shrink()
	}
	b.forget()
	switch {
	case err != nil && !b.away:
		b.log.Error("usage statistics cannot be written; they are kept in memory", "error", err)
	case err == nil && b.away:
		b.log.Info("usage statistics are written again")
		b.shrunk = false
	}
	b.away = err != nil
	return err
}

// collect moves what was added to the buckets that it belongs to.
func (b *Book) collect() {
	b.mu.Lock()
	fresh := b.fresh
	b.fresh, b.latest, b.joined = make(map[int64]*table), nil, make(map[string]joinedGroups)
	b.mu.Unlock()
	for minute, t := range fresh {
		for _, level := range Levels() {
			start := level.start(time.Unix(minute, 0)).Unix()
			for s, c := range t.rows {
				b.waiting(itemKey{level, shardOf(s.principal), start}).row(s).Add(c)
			}
		}
	}
}

// waiting is the table that takes what an item does not hold yet.
func (b *Book) waiting(k itemKey) *table {
	d := b.pending[k]
	if d == nil {
		d = &delta{table: newTable(maxSeries)}
		b.pending[k] = d
	}
	if d.tried == "" {
		return d.table
	}
	if d.later == nil {
		d.later = newTable(maxSeries)
	}
	return d.later
}

// write brings all that is pending into the store, the oldest first.
func (b *Book) write(ctx context.Context) error {
	for range swapRounds {
		keys := slices.SortedFunc(maps.Keys(b.pending), func(x, y itemKey) int {
			return cmp.Or(cmp.Compare(x.start, y.start), cmp.Compare(x.level, y.level), cmp.Compare(x.shard, y.shard))
		})
		if len(keys) == 0 {
			return nil
		}
		for batch := range slices.Chunk(keys, batchItems) {
			if err := b.writeBatch(ctx, batch); err != nil {
				return fmt.Errorf("write usage: %w", err)
			}
		}
	}
	if len(b.pending) > 0 {
		return fmt.Errorf("write usage: %w: somebody else writes under the name %s", state.ErrConflict, b.holder)
	}
	return nil
}

func (b *Book) writeBatch(ctx context.Context, keys []itemKey) error {
	var writes []state.Write
	var written []itemKey
	for _, k := range keys {
		w, err := b.prepare(ctx, k)
		if err != nil {
			b.release(written)
			return err
		}
		if w != nil {
			writes, written = append(writes, *w), append(written, k)
		}
	}
	if len(writes) == 0 {
		return nil
	}
	versions, err := b.store.SwapAll(ctx, writes)
	if err != nil {
		b.release(written)
		return err
	}
	for i, k := range written {
		if versions[i] == 0 {
			delete(b.held, k)
			continue
		}
		b.held[k].version = versions[i]
		b.done(k)
	}
	return nil
}

// release forgets items that hold what may not be in the store: they are read again.
func (b *Book) release(keys []itemKey) {
	for _, k := range keys {
		delete(b.held, k)
	}
}

// prepare makes the write of an item; nil if there is nothing to write.
func (b *Book) prepare(ctx context.Context, k itemKey) (*state.Write, error) {
	expires := k.begins().Add(k.level.width() + b.keep(k.level))
	if !expires.After(b.now()) {
		delete(b.pending, k)
		return nil, nil
	}
	item, err := b.load(ctx, k)
	if err != nil {
		return nil, err
	}
	d := b.pending[k]
	if d.tried != "" && d.tried == item.last { // it was written; only the answer was lost
		if b.done(k); b.pending[k] == nil {
			return nil, nil
		}
	}
	if d.later != nil {
		d.table.merge(d.later)
		d.later = nil
	}
	b.writes++
	d.tried = fmt.Sprintf("%s.%d", b.run, b.writes)
	item.table.merge(d.table)
	item.last = d.tried
	value := encode(item.table, item.last)
	for n := len(item.table.rows); len(value) > state.MaxValue && n > 1; {
		n /= 2
		item.table.fold(n)
		value = encode(item.table, item.last)
	}
	return &state.Write{Key: k.text(b.holder), Version: item.version, Value: value, Expires: expires}, nil
}

// done takes note that the delta's write has happened.
func (b *Book) done(k itemKey) {
	d := b.pending[k]
	if d.later == nil {
		delete(b.pending, k)
		return
	}
	d.table, d.later, d.tried = d.later, nil, ""
}

// load is the item as it is in the store, from memory if it is known.
func (b *Book) load(ctx context.Context, k itemKey) (*held, error) {
	if item := b.held[k]; item != nil {
		return item, nil
	}
	item := &held{table: newTable(maxSeries)}
	stored, err := b.store.Get(ctx, k.text(b.holder))
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return nil, err
	}
	if err == nil {
		item.version = stored.Version
		item.last, err = decode(stored.Value, func(s series, c *Counts) { item.table.row(s).Add(c) })
		if err != nil {
			b.log.Error("usage statistics that cannot be read are replaced", "key", stored.Key, "error", err)
			item.table = newTable(maxSeries)
		}
	}
	b.held[k] = item
	return item, nil
}

// forget drops the items of buckets that have passed.
func (b *Book) forget() {
	now := b.now()
	for k := range b.held {
		if k.start != k.level.start(now).Unix() {
			delete(b.held, k)
		}
	}
}

// shrink keeps what waits within its bound: first the oldest minutes go, of which the hours know the sums; then the names
// in the oldest hours and days.
func (b *Book) shrink() {
	waiting := 0
	for _, d := range b.pending {
		waiting += d.size()
	}
	if waiting <= maxPending {
		return
	}
	width := func(k itemKey) time.Duration { return k.level.width() }
	keys := slices.SortedFunc(maps.Keys(b.pending), func(x, y itemKey) int {
		return cmp.Or(cmp.Compare(width(x), width(y)), cmp.Compare(x.start, y.start))
	})
	for _, k := range keys {
		if waiting <= maxPending {
			break
		}
		d := b.pending[k]
		waiting -= d.size()
		if k.level == Minute {
			delete(b.pending, k)
			continue
		}
		d.table.fold(1)
		if d.later != nil {
			d.later.fold(1)
		}
		waiting += d.size()
	}
	if !b.shrunk {
		b.shrunk = true
		b.log.Warn("usage statistics wait for the store for so long that details of them are given up; sums stay")
	}
}

func (d *delta) size() int {
	if d.later == nil {
		return len(d.table.rows)
	}
	return len(d.table.rows) + len(d.later.rows)
}

// prune deletes what was written when more was kept.
func (b *Book) prune(ctx context.Context) {
	for _, level := range Levels() {
		for shard := range shards {
			if err := b.pruneShard(ctx, level, shard); err != nil {
				b.log.Error("old usage statistics cannot be deleted", "error", err)
				return
			}
		}
	}
}

func (b *Book) pruneShard(ctx context.Context, level Level, shard int) error {
	oldest := level.start(b.now().Add(-b.keep(level)))
	for {
		page, err := b.store.List(ctx, shardPrefix(level, shard), "", prunePage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, item := range page {
			at := strings.TrimPrefix(item.Key, shardPrefix(level, shard))
			if at >= oldest.Format(level.layout()) {
				return nil
			}
			if err := b.store.Delete(ctx, item.Key, item.Version); err != nil && !errors.Is(err, state.ErrNotFound) && !errors.Is(err, state.ErrConflict) {
				return err
			}
		}
	}
}
