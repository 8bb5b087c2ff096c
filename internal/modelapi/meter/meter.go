// Package meter counts what an answer of a model server costs, while it flows.
package meter

import (
	"net/http"

	"iap/internal/modelapi"
)

// Source says where a count came from, best first.
type Source string

// The sources.
const (
	Provider Source = "provider" // the server's own final figures
	Running  Source = "running"  // its running counters, from an answer that was cut
	Deltas   Source = "deltas"   // pieces of text counted, about one token each
	Estimate Source = "estimate" // bytes divided by four
	Unset    Source = ""         // nothing is known
)

// Usage is what one exchange cost. A count that is not known is -1, never 0.
type Usage struct {
	Input, Output     int64 // tokens; Input includes Cached, Output includes Reasoning
	Cached, Reasoning int64
	Source            Source
}

// Meter counts one answer. It is for one goroutine.
type Meter struct{}

// New begins to count the answer to a request of class c, whose Framing is the one the answer really has. status and
// header are the answer's.
func New(c modelapi.Class, status int, header http.Header) *Meter { return &Meter{} }

// Feed takes the next bytes of the answer and returns those to pass on: the same slice, unless a usage chunk that the
// caller had not asked for is taken out. What it returns is valid until the next call.
func (m *Meter) Feed(p []byte) []byte { return p }

// Rest returns what Feed held back when the answer has ended.
func (m *Meter) Rest() []byte { return nil }

// Running is what is known so far, for a budget that runs out. It costs nothing.
func (m *Meter) Running() Usage { return Usage{} }

// ID is the id that the answer hands out (Class.Hands), "" until it has been read. Feed returns no byte of it before.
func (m *Meter) ID() string { return "" }

// Failed says that the answer carried an error in band.
func (m *Meter) Failed() bool { return false }

// Finish gives the final count. whole says that the answer was not cut.
func (m *Meter) Finish(whole bool) Usage { return Usage{} }
