package usage

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"
)

// format is the first byte of an item. What follows are unsigned varints and texts (length, bytes):
//
//	last      text: the write that made this item
//	names     count, then each text
//	groups    count, then each set: count, and an index into names for each group. Sets share most of their groups
//	rows      count, then each: five indices into names (principal, resource, model, action, grant), one into groups, seven
//	          sums (requests, denied, errors, cancelled, tokens in, tokens out, microseconds), how many buckets of the
//	          histogram are not empty, and for each of these its number and count
const format = 1

// maxNumber is more than anything that is counted; its sums and microseconds stay far from overflowing.
const maxNumber = 1 << 53

var errFormat = errors.New("usage: the item is damaged, or of a newer version")

// names are those of a series besides its groups.
func (s *series) names() [5]*string {
	return [5]*string{&s.principal, &s.resource, &s.model, &s.action, &s.grant}
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
	names, sets := index{}, index{}
	for s := range t.rows {
		for _, n := range s.names() {
			names.add(*n)
		}
		if sets.add(s.groups) {
			for group := range strings.SplitSeq(s.groups, groupBreak) {
				names.add(group)
			}
		}
	}
	out := appendText(append(make([]byte, 0, 64*len(t.rows)+256), format), last)
	out = binary.AppendUvarint(out, uint64(len(names)))
	for _, n := range names.number() {
		out = appendText(out, n)
	}
	out = binary.AppendUvarint(out, uint64(len(sets)))
	for _, set := range sets.number() {
		groups := strings.Split(set, groupBreak)
		out = binary.AppendUvarint(out, uint64(len(groups)))
		for _, group := range groups {
			out = binary.AppendUvarint(out, names[group])
		}
	}
	out = binary.AppendUvarint(out, uint64(len(t.rows)))
	for s, c := range t.rows {
		for _, n := range s.names() {
			out = binary.AppendUvarint(out, names[*n])
		}
		out = appendCounts(binary.AppendUvarint(out, sets[s.groups]), c)
	}
	return out
}

// index is texts by their place.
type index map[string]uint64

// add reports whether the text is new.
func (x index) add(text string) bool {
	_, known := x[text]
	x[text] = 0
	return !known
}

// number gives each text its place, and lists them.
func (x index) number() []string {
	sorted := slices.Sorted(maps.Keys(x))
	for i, text := range sorted {
		x[text] = uint64(i)
	}
	return sorted
}

func appendCounts(out []byte, c *Counts) []byte {
	for _, n := range c.sums() {
		out = binary.AppendUvarint(out, uint64(clamp(n, maxNumber)))
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
	names := make([]string, r.count())
	for i := range names {
		names[i] = r.text()
	}
	sets := make([]string, r.count())
	for i := range sets {
		groups := make([]string, min(r.count(), MaxGroups))
		for g := range groups {
			groups[g] = r.of(names)
		}
		sets[i] = strings.Join(groups, groupBreak)
	}
	for range r.count() {
		var s series
		for _, n := range s.names() {
			*n = r.of(names)
		}
		s.groups = r.of(sets)
		var c Counts
		r.counts(&c)
		if r.bad {
			break
		}
		visit(s, &c)
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

// of is one of the texts, by its place.
func (r *reader) of(texts []string) string {
	n := r.number()
	if n >= int64(len(texts)) {
		r.bad = true
		return ""
	}
	return texts[n]
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
