package usage

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"
)

// Dimension is what rows are made of.
type Dimension string

// The dimensions.
const (
	ByPrincipal Dimension = "principal"
	ByGroup     Dimension = "group" // a request counts in each group of its caller: rows sum up to more than the total
	ByModel     Dimension = "model"
	ByResource  Dimension = "resource"
	ByGrant     Dimension = "grant"
	ByAction    Dimension = "action"
)

// Dimensions lists them.
func Dimensions() []Dimension {
	return []Dimension{ByPrincipal, ByGroup, ByModel, ByResource, ByGrant, ByAction}
}

const (
	maxNames = 20000    // told apart in one answer; further ones are among the others
	maxRead  = 64 << 20 // bytes of the store for one answer
	// MaxRows is how many rows an answer has at most.
	MaxRows = 1000
)

var (
	// ErrTooMuch says that more would have to be read than one answer may cost.
	ErrTooMuch = errors.New("too much usage to sum up at once")
	// ErrQuestion says that the question has no answer.
	ErrQuestion = errors.New("the end is not after the beginning")
)

// Query is a question. Empty filters leave nothing out.
type Query struct {
	From, To  time.Time // rounded outwards to what is kept; To zero or to come: now
	By        Dimension // "": the total alone
	Per       Level     // "": no points
	Principal string
	Resource  string
	Model     string
	Top       int // rows; 0: MaxRows
}

// Report is the answer. Total is exact whatever the number of rows.
type Report struct {
	From, To   time.Time // what is really summed up
	Total      Counts
	Rows       []Row // those that used most first
	Others     Counts
	OtherRows  int     // that Others sums up
	Points     []Point // each bucket in which something happened, by time
	Incomplete bool    // some of what is kept cannot be read
}

// Row is one name's part.
type Row struct {
	Name string
	Counts
}

// Point is one bucket's part.
type Point struct {
	Start time.Time
	Counts
}

// Query answers a question from the store, and from what is not written yet. There is one at a
// time; others wait.
func (b *Book) Query(ctx context.Context, q Query) (Report, error) {
	if err := b.take(ctx); err != nil {
		return Report{}, err
	}
	defer b.give()
	b.collect()
	p, err := b.plan(q)
	if err != nil {
		return Report{}, err
	}
	t := &tally{query: q, names: make(map[string]*Counts), points: make(map[int64]*Counts)}
	if err := b.read(ctx, p, t); err != nil {
		return Report{}, err
	}
	b.addPending(p, t)
	return t.report(p), nil
}

// tally sums up.
type tally struct {
	query      Query
	total      Counts
	names      map[string]*Counts
	rest       Counts // of names beyond maxNames
	dropped    bool
	points     map[int64]*Counts
	incomplete bool
	bytes      int
	written    map[itemKey]string // own items by the write that made each
}

func (t *tally) add(k itemKey, s series, c *Counts) {
	q := &t.query
	if q.Principal != "" && q.Principal != s.principal || q.Resource != "" && q.Resource != s.resource || q.Model != "" && q.Model != s.model {
		return
	}
	t.total.Add(c)
	if q.Per != "" {
		p := t.points[k.start]
		if p == nil {
			p = new(Counts)
			t.points[k.start] = p
		}
		p.Add(c)
	}
	switch q.By {
	case "":
	case ByGroup:
		issuer, _, _ := strings.Cut(s.principal, "/")
		for group := range strings.SplitSeq(s.groups, groupBreak) {
			if group != None && group != "" {
				group = issuer + "/" + group
			} else {
				group = None
			}
			t.addName(group, c)
		}
	default:
		t.addName(s.dimension(q.By), c)
	}
}

func (t *tally) addName(name string, c *Counts) {
	sum := t.names[name]
	if sum == nil && len(t.names) >= maxNames {
		t.dropped = true
		t.rest.Add(c)
		return
	}
	if sum == nil {
		sum = new(Counts)
		t.names[name] = sum
	}
	sum.Add(c)
}

func (s series) dimension(by Dimension) string {
	switch by {
	case ByPrincipal:
		return s.principal
	case ByModel:
		return s.model
	case ByResource:
		return s.resource
	case ByGrant:
		return s.grant
	}
	return s.action
}

func (t *tally) report(p plan) Report {
	r := Report{From: p.from, To: p.to, Total: t.total, Others: t.rest, Incomplete: t.incomplete}
	for name, c := range t.names {
		r.Rows = append(r.Rows, Row{name, *c})
	}
	slices.SortFunc(r.Rows, func(x, y Row) int { return cmp.Or(compareUse(&y.Counts, &x.Counts), cmp.Compare(x.Name, y.Name)) })
	top := t.query.Top
	if top <= 0 || top > MaxRows {
		top = MaxRows
	}
	if t.dropped {
		r.OtherRows = 1 // at least
	}
	for _, row := range r.Rows[min(top, len(r.Rows)):] {
		r.Others.Add(&row.Counts)
		r.OtherRows++
	}
	r.Rows = r.Rows[:min(top, len(r.Rows))]
	for _, start := range slices.Sorted(maps.Keys(t.points)) {
		r.Points = append(r.Points, Point{time.Unix(start, 0).UTC(), *t.points[start]})
	}
	return r
}
