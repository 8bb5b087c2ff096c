package usage

import (
	"math"
	"time"
)

// buckets of a histogram: two for each doubling, from a millisecond to nine minutes. A quantile is right to a fifth.
const histogramBuckets = 40

// Histogram counts durations. Bucket i holds those of up to √2^i milliseconds, the last one all longer ones too. The
// bounds never change: histograms of different relays and times add up.
type Histogram [histogramBuckets]int64

func (h *Histogram) observe(d time.Duration) {
	ms := float64(d) / float64(time.Millisecond)
	i := 0
	if ms > 1 {
		i = min(int(math.Ceil(2*math.Log2(ms))), histogramBuckets-1)
	}
	h[i]++
}

// Count is how many durations there are.
func (h *Histogram) Count() (n int64) {
	for _, one := range h {
		n += one
	}
	return n
}

// Quantile is the duration that the part q of all does not exceed, as well as the buckets tell; 0 if there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := q * float64(h.Count())
	for i, n := range h {
		if n == 0 || rank > float64(n) {
			rank -= float64(n)
			continue
		}
		inside := max(rank, 0) / float64(n) // how far into the bucket, on its logarithmic scale
		ms := math.Exp2((float64(i) - 1 + inside) / 2)
		return time.Duration(ms * float64(time.Millisecond))
	}
	return 0
}
