package usage

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"
)

// format is the first byte of an item. What follows are unsigned varints and texts (length, bytes):
//
//	last      text: the write that made this item
//	names     count, then each text
//	rows      count, then each: six indices into names (principal, groups, resource, model, action, grant), seven sums
//	          (requests, denied, errors, cancelled, tokens in, tokens out, microseconds), how many buckets of the
//	          histogram are not empty, and for each of these its number and count
const format = 1

// maxNumber is more than anything that is counted; its sums and microseconds stay far from overflowing.
const maxNumber = 1 << 53

var errFormat = errors.New("usage: the item is damaged, or of a newer version")

func (s series) names() [6]string {
	return [6]string{s.principal, s.groups, s.resource, s.model, s.action, s.grant}
}

func seriesOf(n [6]string) series {
	return series{principal: n[0], groups: n[1], resource: n[2], model: n[3], action: n[4], grant: n[5]}
}

// sums are the counts besides the histogram.
func (c *Counts) sums() [7]int64 {
	return [7]int64{c.Requests, c.Denied, c.Errors, c.Cancelled, c.TokensIn, c.TokensOut, c.Duration.Microseconds()}
}

func (c *Counts) setSums(n [7]int64) {
	c.Requests, c.Denied, c.Errors, c.Cancelled, c.TokensIn, c.TokensOut = n[0], n[1], n[2], n[3], n[4], n[5]
	c.Duration = time.Duration(n[6]) * time.Microsecond
}

// encode writes a table; last is the write's own name.
func encode(t *table, last string) []byte {
	index := map[string]uint64{}
	for s := range t.rows {
		for _, n := range s.names() {
			index[n] = 0
		}
	}
	sorted := slices.Sorted(maps.Keys(index))
	out := appendText(append(make([]byte, 0, 64*len(t.rows)+256), format), last)
	out = binary.AppendUvarint(out, uint64(len(sorted)))
	for i, n := range sorted {
		index[n] = uint64(i)
		out = appendText(out, n)
	}
	out = binary.AppendUvarint(out, uint64(len(t.rows)))
	for s, c := range t.rows {
		for _, n := range s.names() {
			out = binary.AppendUvarint(out, index[n])
		}
		out = appendCounts(out, c)
	}
	return out
}

func appendCounts(out []byte, c *Counts) []byte {
	for _, n := range c.sums() {
		out = binary.AppendUvarint(out, uint64(n))
	}
	used := 0
	for _, n := range c.First {
		if n > 0 {
			used++
		}
	}
	out = binary.AppendUvarint(out, uint64(used))
	for i, n := range c.First {
		if n > 0 {
			out = binary.AppendUvarint(binary.AppendUvarint(out, uint64(i)), uint64(n))
		}
	}
	return out
}

func appendText(out []byte, text string) []byte {
	return append(binary.AppendUvarint(out, uint64(len(text))), text...)
}

// decode reads an item and hands each row to visit, whose counts are only good until it returns.
func decode(data []byte, visit func(series, *Counts)) (last string, err error) {
	if len(data) == 0 || data[0] != format {
		return "", errFormat
	}
	r := reader{rest: data[1:]}
	last = r.text()
	names := make([]string, 0, r.count())
	for range cap(names) {
		names = append(names, r.text())
	}
	for range r.count() {
		var of [6]string
		for i := range of {
			of[i] = r.named(names)
		}
		var c Counts
		r.counts(&c)
		if r.bad {
			break
		}
		visit(seriesOf(of), &c)
	}
	if r.bad || len(r.rest) > 0 {
		return last, errFormat
	}
	return last, nil
}

// reader takes values off an item's bytes; once one is bad, all that follow are zero.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) number() int64 {
	n, size := binary.Uvarint(r.rest)
	if r.bad || size <= 0 || n > maxNumber {
		r.bad = true
		return 0
	}
	r.rest = r.rest[size:]
	return int64(n)
}

// count is a number of things that follow, each of at least a byte.
func (r *reader) count() int {
	n := r.number()
	if n > int64(len(r.rest)) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *reader) text() string {
	n := r.count()
	text := string(r.rest[:n])
	r.rest = r.rest[n:]
	return text
}

func (r *reader) named(names []string) string {
	n := r.number()
	if n >= int64(len(names)) {
		r.bad = true
		return ""
	}
	return names[n]
}

func (r *reader) counts(c *Counts) {
	var sums [7]int64
	for i := range sums {
		sums[i] = r.number()
	}
	c.setSums(sums)
	for range r.count() {
		i, n := r.number(), r.number()
		if i >= histogramBuckets {
			r.bad = true
			return
		}
		c.First[i] += n
	}
}
