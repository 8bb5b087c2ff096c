package usage

import (
	"context"
	"fmt"
	"time"
)

// readPage is how many items are read at once: what a page has beyond the end is read for nothing.
const readPage = 100

// plan says which buckets answer a question.
type plan struct {
	from, to time.Time
	spans    []span
	shards   []int
}

// span is a run of buckets of one level: from included, to not.
type span struct {
	level    Level
	from, to time.Time
}

func (p plan) covers(k itemKey) bool {
	for _, s := range p.spans {
		if s.level == k.level && k.start >= s.from.Unix() && k.start < s.to.Unix() {
			return true
		}
	}
	return false
}

// plan rounds the time asked for outwards to what is kept, and takes the widest buckets that fit into it.
func (b *Book) plan(q Query) (plan, error) {
	now := b.now().UTC()
	p := plan{from: q.From.UTC(), to: q.To.UTC()}
	untilNow := q.To.IsZero() || !p.to.Before(now)
	if untilNow {
		p.to = now
	}
	if !p.from.Before(p.to) {
		return p, ErrQuestion
	}
	if q.Principal != "" {
		p.shards = []int{shardOf(q.Principal)}
	} else {
		for shard := range shards {
			p.shards = append(p.shards, shard)
		}
	}
	first := func(l Level) time.Time { return l.start(now.Add(-b.keep(l))) } // the oldest bucket that is there
	level := q.Per
	if level == "" && !p.from.Before(first(Minute)) {
		level = Minute
	}
	if level != "" {
		p.from = latest(level.start(p.from), first(level))
		end := ceil(level, p.to)
		p.spans = []span{{level, p.from, end}}
		if !untilNow {
			p.to = latest(end, p.from)
		}
		return p, nil
	}
	p.from = latest(Hour.start(p.from), first(Day))
	if p.from.Before(first(Hour)) {
		p.from = Day.start(p.from)
	}
	end := ceil(Day, now) // of the present day all that there is has been
	if !untilNow {
		if end = ceil(Hour, p.to); end.Before(first(Hour)) {
			end = ceil(Day, p.to)
		}
		p.to = latest(end, p.from)
	}
	days := span{Day, ceil(Day, p.from), Day.start(end)}
	if days.from.After(days.to) {
		p.spans = []span{{Hour, p.from, end}}
		return p, nil
	}
	p.spans = []span{{Hour, p.from, days.from}, days, {Hour, days.to, end}}
	return p, nil
}

// ceil is the end of the bucket before t, or t itself where a bucket begins.
func ceil(l Level, t time.Time) time.Time {
	if start := l.start(t); start.Before(t) {
		return start.Add(l.width())
	}
	return t
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// read adds what the store has.
func (b *Book) read(ctx context.Context, p plan, t *tally) error {
	t.written = make(map[itemKey]string)
	for _, s := range p.spans {
		for _, shard := range p.shards {
			if err := b.readShard(ctx, s, shard, t); err != nil {
				return fmt.Errorf("read usage: %w", err)
			}
		}
	}
	return nil
}

func (b *Book) readShard(ctx context.Context, s span, shard int, t *tally) error {
	if !s.from.Before(s.to) {
		return nil
	}
	under := shardPrefix(s.level, shard)
	after := under + s.from.Format(s.level.layout()) // less than any key of that bucket
	end := under + s.to.Format(s.level.layout())
	for {
		page, err := b.store.List(ctx, under, after, readPage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, item := range page {
			if item.Key >= end {
				return nil
			}
			k, holder, ok := parseKey(s.level, shard, item.Key)
			if !ok {
				t.incomplete = true
				continue
			}
			if t.bytes += len(item.Value); t.bytes > maxRead {
				return ErrTooMuch
			}
			last, err := decode(item.Value, func(s series, c *Counts) { t.add(k, s, c) })
			if err != nil {
				t.incomplete = true
			}
			if holder == b.holder {
				t.written[k] = last
			}
		}
		after = page[len(page)-1].Key
	}
}

// addPending adds what is not written yet. What was written without our knowing has been read.
func (b *Book) addPending(p plan, t *tally) {
	for k, d := range b.pending {
		if !p.covers(k) {
			continue
		}
		if d.tried == "" || t.written[k] != d.tried {
			t.addTable(k, d.table)
		}
		if d.later != nil {
			t.addTable(k, d.later)
		}
	}
}

func (t *tally) addTable(k itemKey, from *table) {
	for s, c := range from.rows {
		t.add(k, s, c)
	}
}
