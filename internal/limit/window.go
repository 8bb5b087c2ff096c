package limit

import (
	"math"
	"slices"
	"time"
)

// buckets is how finely a window slides: what was used comes free between one window and one window and a sixtieth later.
const buckets = 60

// bucketWidth returns the nanoseconds of one of a window's buckets; 0 for a counter without a window.
func bucketWidth(window time.Duration) int64 { return (int64(window) + buckets - 1) / buckets }

// charge is an amount used within one bucket of time, numbered from 1970 on.
type charge struct {
	Bucket int64 `json:"b"`
	N      int64 `json:"n"`
}

// ring holds the charges of one window, oldest first.
type ring struct {
	list []charge
	sum  int64
}

// add books n in a bucket. Almost always it is the last one.
func (r *ring) add(bucket, n int64) {
	if n == 0 {
		return
	}
	r.sum += n
	i := len(r.list)
	for i > 0 && r.list[i-1].Bucket > bucket {
		i--
	}
	if i > 0 && r.list[i-1].Bucket == bucket {
		r.list[i-1].N += n
		return
	}
	r.list = slices.Insert(r.list, i, charge{bucket, n})
}

// addAll books the charges of other, none of which may take a bucket below zero: a refund whose charge is gone is void.
func (r *ring) addAll(other ring) {
	for _, c := range other.list {
		r.add(c.Bucket, c.N)
	}
	kept := r.list[:0]
	r.sum = 0
	for _, c := range r.list {
		if c.N > 0 {
			kept = append(kept, c)
			r.sum += c.N
		}
	}
	r.list = kept
}

// slide forgets what lies a whole window before the current bucket. What lies in the future was written by a clock that
// was ahead of ours and in truth is past: it counts as of now.
func (r *ring) slide(current int64) {
	gone := 0
	for gone < len(r.list) && r.list[gone].Bucket < current-buckets {
		r.sum -= r.list[gone].N
		gone++
	}
	if gone > 0 {
		r.list = r.list[:copy(r.list, r.list[gone:])]
	}
	ahead := int64(0)
	for n := len(r.list); n > 0 && r.list[n-1].Bucket > current; n-- {
		ahead += r.list[n-1].N
		r.sum -= r.list[n-1].N
		r.list = r.list[:n-1]
	}
	r.add(current, ahead)
}

// forgive takes up to n off the oldest charges.
func (r *ring) forgive(n int64) {
	for i := range r.list {
		part := min(n, max(0, r.list[i].N))
		r.list[i].N -= part
		r.sum -= part
		n -= part
	}
	r.list = slices.DeleteFunc(r.list, func(c charge) bool { return c.N == 0 })
}

func (r *ring) clone() ring { return ring{slices.Clone(r.list), r.sum} }

// freeAt returns when a bucket's charge has slid out of the window, in the counter's time.
func freeAt(bucket, width int64) int64 {
	if bucket > math.MaxInt64/max(width, 1)-buckets-1 {
		return math.MaxInt64
	}
	return (bucket + buckets + 1) * width
}
