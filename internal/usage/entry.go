package usage

import (
	"slices"
	"strings"
	"time"
)

// Words in the place of names.
const (
	Other   = "(other)"   // what found no place of its own
	Refused = "(refused)" // the model of a request that was denied: it may be any text
	Unknown = "(unknown)" // the model of a request that was allowed, if the server does not have it
	None    = "(none)"    // no model, no group, no grant
)

// MaxGroups is how many groups of one principal its requests count under: the first ones.
const MaxGroups = 32

const (
	maxName = 512 // bytes of a name, more than any principal has; longer ones are cut

	maxTokens   = 1 << 32   // of one request: a model server may say anything
	maxDuration = 366 * day // likewise, if a clock jumps
)

// Outcome is how a request ended.
type Outcome uint8

// The outcomes.
const (
	Completed Outcome = iota
	Failed            // an error of the model server, of an agent or of ours
	Cancelled         // the caller left
	Denied            // it never went anywhere
)

// Entry is one request.
type Entry struct {
	Time      time.Time // zero, to come, or more than a few minutes ago: now
	Principal string    // issuer/subject
	Groups    []string  // without the issuer, MaxGroups at most; read, not kept
	Resource  string
	Model     string
	Action    string
	Grant     string
	Outcome   Outcome
	TokensIn  int64
	TokensOut int64
	TTFT      time.Duration // 0: no token came
	Duration  time.Duration
}

// Counts are sums over requests.
type Counts struct {
	Requests  int64 // that were allowed and have ended
	Denied    int64 // that were not; not among Requests
	Errors    int64 // of Requests
	Cancelled int64 // of Requests
	TokensIn  int64
	TokensOut int64
	Duration  time.Duration // of Requests, all together
	First     Histogram     // times to the first token
}

func (c *Counts) count(e *Entry) {
	if e.Outcome == Denied {
		c.Denied++
		return
	}
	c.Requests++
	switch e.Outcome {
	case Failed:
		c.Errors++
	case Cancelled:
		c.Cancelled++
	}
	c.TokensIn += clamp(e.TokensIn, maxTokens)
	c.TokensOut += clamp(e.TokensOut, maxTokens)
	c.Duration += clamp(e.Duration, maxDuration).Truncate(time.Microsecond) // as it is kept
	if e.TTFT > 0 {
		c.First.observe(e.TTFT)
	}
}

func clamp[N ~int64](n, most N) N { return min(max(n, 0), most) }

// Add adds other to c.
func (c *Counts) Add(other *Counts) {
	c.Requests += other.Requests
	c.Denied += other.Denied
	c.Errors += other.Errors
	c.Cancelled += other.Cancelled
	c.TokensIn += other.TokensIn
	c.TokensOut += other.TokensOut
	c.Duration += other.Duration
	for i, n := range other.First {
		c.First[i] += n
	}
}

// series is what counts are kept apart by.
type series struct {
	principal string
	groups    string // joined by groupBreak
	resource  string
	model     string
	action    string
	grant     string
}

// groupBreak stands between the groups of a series: no name has it.
const groupBreak = "\n"

// name makes a text fit to be kept: short, valid, on one line, and never empty.
func name(text string) string {
	if text == "" {
		return None
	}
	if len(text) > maxName {
		text = text[:maxName]
	}
	if strings.Contains(text, groupBreak) {
		text = strings.ReplaceAll(text, groupBreak, " ")
	}
	return strings.ToValidUTF8(text, "?")
}

// joinGroups makes one text of the groups that count, the same in whichever order a token has them.
func joinGroups(groups []string) string {
	names := make([]string, min(len(groups), MaxGroups))
	for i := range names {
		names[i] = name(groups[i])
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), groupBreak)
}
