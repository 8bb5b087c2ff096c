package usage

import (
	"cmp"
	"maps"
	"slices"
)

const (
	maxSeries      = 2048 // of one bucket and shard: some 100 KiB in the store
	maxOfPrincipal = 100  // so that one principal's names cannot take the place of others
	maxFresh       = 8192 // of one minute, of all shards, between two writes
)

// table is sums by series; newTable makes one.
type table struct {
	rows map[series]*Counts
	of   map[string]int // series of each principal
	most int            // series beyond which new ones find no place
}

func newTable(most int) *table {
	return &table{rows: make(map[series]*Counts), of: make(map[string]int), most: most}
}

// row returns the counts of a series, or of the one that stands for what found no place.
func (t *table) row(s series) *Counts {
	if c := t.rows[s]; c != nil {
		return c
	}
	if s.principal != Other && t.of[s.principal] >= maxOfPrincipal {
		s = otherOf(s.principal)
	} else if len(t.rows) >= t.most {
		s = otherOf(Other)
	}
	c := t.rows[s]
	if c == nil {
		c = new(Counts)
		t.rows[s] = c
		t.of[s.principal]++
	}
	return c
}

func otherOf(principal string) series {
	return series{principal: principal, resource: Other, model: Other, action: Other, grant: Other}
}

func (t *table) merge(from *table) {
	for s, c := range from.rows {
		t.row(s).Add(c)
	}
}

// fold leaves at most n series, those that were used most, and adds the rest to the one of all others.
func (t *table) fold(n int) {
	if len(t.rows) <= n {
		return
	}
	all := slices.Collect(maps.Keys(t.rows))
	slices.SortFunc(all, func(a, b series) int { return compareUse(t.rows[b], t.rows[a]) })
	rest := new(Counts)
	for _, s := range all[n-1:] {
		rest.Add(t.rows[s])
		delete(t.rows, s)
		t.of[s.principal]--
	}
	s := otherOf(Other)
	if c := t.rows[s]; c != nil {
		c.Add(rest)
		return
	}
	t.rows[s] = rest
	t.of[s.principal]++
}

// compareUse orders by what costs: tokens, then requests, then refusals.
func compareUse(a, b *Counts) int {
	return cmp.Or(
		cmp.Compare(a.TokensIn+a.TokensOut, b.TokensIn+b.TokensOut),
		cmp.Compare(a.Requests, b.Requests), cmp.Compare(a.Denied, b.Denied),
	)
}
