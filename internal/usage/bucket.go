package usage

import (
	"hash/fnv"
	"strconv"
	"strings"
	"time"
)

// Level is the width of a bucket of time.
type Level string

// The levels.
const (
	Minute Level = "minute"
	Hour   Level = "hour"
	Day    Level = "day"
)

const (
	keepMinutes   = 2 * time.Hour
	keepHours     = 14 * 24 * time.Hour
	DefaultRetain = 400 * 24 * time.Hour // a year, and the month to compare it with

	day    = 24 * time.Hour
	shards = 8
	prefix = "usage/"
)

// Levels lists them, from the finest.
func Levels() []Level { return []Level{Minute, Hour, Day} }

func (l Level) width() time.Duration {
	switch l {
	case Minute:
		return time.Minute
	case Hour:
		return time.Hour
	}
	return day
}

// layout is how a bucket's beginning is written, so that keys sort by time.
func (l Level) layout() string {
	switch l {
	case Minute:
		return "2006-01-02T15:04"
	case Hour:
		return "2006-01-02T15"
	}
	return "2006-01-02"
}

// start is the beginning of the bucket that t is in.
func (l Level) start(t time.Time) time.Time {
	return t.UTC().Truncate(l.width()) // counted from year 1, so that days begin at midnight UTC
}

// keep is how long a bucket is kept after its beginning.
func (b *Book) keep(l Level) time.Duration {
	switch l {
	case Minute:
		return min(keepMinutes, b.retain)
	case Hour:
		return min(keepHours, b.retain)
	}
	return b.retain
}

// itemKey names one item of the store: a bucket of one shard. The holder is the book's.
type itemKey struct {
	level Level
	shard int
	start int64 // Unix seconds
}

func (k itemKey) begins() time.Time { return time.Unix(k.start, 0).UTC() }

// text is the key in the store.
func (k itemKey) text(holder string) string {
	return shardPrefix(k.level, k.shard) + k.begins().Format(k.level.layout()) + "/" + holder
}

func shardPrefix(l Level, shard int) string {
	return prefix + string(l[0]) + "/" + strconv.Itoa(shard) + "/"
}

// parseKey reads what text wrote.
func parseKey(l Level, shard int, key string) (k itemKey, holder string, ok bool) {
	at, holder, ok := strings.Cut(strings.TrimPrefix(key, shardPrefix(l, shard)), "/")
	t, err := time.Parse(l.layout(), at)
	return itemKey{level: l, shard: shard, start: t.Unix()}, holder, ok && err == nil
}

// shardOf spreads principals.
func shardOf(principal string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(principal)) // never fails
	return int(h.Sum32() % shards)
}
