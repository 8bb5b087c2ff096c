package limit

import (
	"net/http"
	"time"
)

// Rate is an amount within a sliding window.
type Rate struct {
	N   int64
	Per time.Duration
}

// Rule is one set of limits that holds for a request, with the counter it is counted on.
type Rule struct {
	Grant      string // the grant's name, part of every counter's key
	Per        string // "principal", "group" or "grant"
	Who        string // the principal's ID, the group; "" for grant
	Requests   []Rate
	Tokens     []Rate
	Concurrent int
	Warn       bool // count and give notice, but refuse nothing
	Contact    string
}

// Ask is what a request wants.
type Ask struct {
	Rules   []Rule
	Input   int64 // tokens, estimated
	Output  int64 // tokens, of all its answers together; 0: it has no output
	Choices int64 // answers; at least 1
	// Unstated says that Output is our word, not the caller's. Either way less may be granted: see Reservation.Output.
	Unstated bool
}

// Reservation holds what a request may use until it is settled or released; the first of these counts, later ones do
// nothing. All methods may run beside each other.
type Reservation interface {
	Output() int64                 // tokens of output reserved for all answers; -1: no rule bounds it
	Header(h http.Header)          // sets x-ratelimit-*
	Use(input, output int64) error // so far; an *Exceeded says that the answer is to be cut
	Settle(input, output int64)    // in the end
	Release()                      // nothing was used
}

// Exceeded says that a limit is reached.
type Exceeded struct {
	Code       string        // "rate_limited", "concurrency_exceeded", "budget_exceeded"; of Use alone also "limits_unavailable"
	Message    string        // without the code, which Error puts before it
	RetryAfter time.Duration // when this request would fit, from 1 s to 24 h
	Header     http.Header   // x-ratelimit-*; not nil
}

func (e *Exceeded) Error() string { return e.Code + ": " + e.Message }

// Notice tells that a limit is used to 80 or 100 percent.
type Notice struct {
	Rule    Rule
	Percent int
	Text    string
}
