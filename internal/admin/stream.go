package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"
)

const (
	// askAgainEvery is how often a caller who is still being answered is asked for
	// its right: it ends within a second of the right.
	askAgainEvery = 400 * time.Millisecond
	// lineTimeout ends a reader who takes nothing.
	lineTimeout = 30 * time.Second
)

// stream answers a line at a time for as long as the caller has the right. The
// last line says why there are no more, unless the caller left.
func (h *gated) stream(w http.ResponseWriter, r *http.Request, q any) {
	ctx, end := context.WithCancelCause(r.Context())
	defer end(nil)
	out := &lineWriter{ResponseWriter: w, control: http.NewResponseController(w)}
	var asking sync.WaitGroup
	asking.Go(func() { h.askAgain(ctx, end, out) })
	_, err := h.perform(ctx, h.backend, q, out)
	lost := context.Cause(ctx)
	end(nil)
	asking.Wait()
	if r.Context().Err() != nil || err == nil && lost == nil {
		return
	}
	var why *Error
	if !errors.As(lost, &why) && !errors.As(err, &why) {
		why = &Error{Status: http.StatusInternalServerError, Code: "internal", Message: "the relay ended the stream", Hint: "its log says why"}
	}
	if !out.begun {
		WriteError(w, why)
		return
	}
	_ = writeLine(out, TailLine{Error: why}) // whoever does not read it sees the end
}

// askAgain ends the stream once the caller may not use the verb any more. A write
// that waits for a slow reader ends with it.
func (h *gated) askAgain(ctx context.Context, end context.CancelCauseFunc, out *lineWriter) {
	tick := time.NewTicker(askAgainEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := h.gate.May(ctx, h.verb); err != nil {
			end(err)
			out.hurry()
			return
		}
	}
}

// lineWriter is an answer of lines.
type lineWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	begun   bool // owned by whoever writes

	mu      sync.Mutex
	hurried bool // guarded by mu: no line may take long any more
}

// hurry gives the line being written, and those to come, a second altogether.
func (w *lineWriter) hurry() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hurried = true
	_ = w.control.SetWriteDeadline(time.Now().Add(time.Second)) // where there is none, the session's end is the bound
}

// prolong gives the next line its time.
func (w *lineWriter) prolong() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.hurried {
		_ = w.control.SetWriteDeadline(time.Now().Add(lineTimeout)) // likewise
	}
}

// writeLine writes one line and sends it on.
func writeLine(to http.ResponseWriter, line TailLine) error {
	data, err := json.Marshal(line)
	if err != nil {
		return err
	}
	w, ok := to.(*lineWriter)
	if !ok {
		return errors.New("the answer is no stream")
	}
	if !w.begun {
		h := w.Header()
		h.Set("Content-Type", "application/x-ndjson")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Connection", "close") // its deadlines are not for another request
		w.begun = true
	}
	w.prolong()
	if _, err := w.Write(append(data, '\n')); err != nil {
		return err
	}
	return w.control.Flush()
}
