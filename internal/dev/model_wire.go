package dev

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// readJSON reads a body that must be one JSON object. The status fits the error.
func readJSON(r *http.Request, into any) (status int, err error) {
	decoder := json.NewDecoder(r.Body)
	if err := decoder.Decode(into); err != nil {
		var tooBig *http.MaxBytesError
		if errors.As(err, &tooBig) {
			return http.StatusRequestEntityTooLarge, fmt.Errorf("body larger than %d bytes", tooBig.Limit)
		}
		return http.StatusBadRequest, fmt.Errorf("cannot read the request: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return http.StatusBadRequest, errors.New("cannot read the request: more than one JSON value")
	}
	return 0, nil
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that left reads nothing
}

// eventWriter writes a stream, one flushed record at a time. No data waits for more.
type eventWriter struct {
	w     http.ResponseWriter
	flush func() error
}

// newEventWriter begins a stream of server-sent events.
func newEventWriter(w http.ResponseWriter) *eventWriter {
	w.Header().Set("Cache-Control", "no-cache")
	return newRecordWriter(w, "text/event-stream")
}

// newRecordWriter begins a stream of any kind.
func newRecordWriter(w http.ResponseWriter, kind string) *eventWriter {
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(http.StatusOK)
	return &eventWriter{w: w, flush: http.NewResponseController(w).Flush}
}

func (e *eventWriter) event(v any) error {
	return e.write("data: " + string(mustJSON(v)) + "\n\n")
}

// named writes an event that has a name beside its data.
func (e *eventWriter) named(name string, v any) error {
	return e.write("event: " + name + "\ndata: " + string(mustJSON(v)) + "\n\n")
}

func (e *eventWriter) done() error { return e.write("data: [DONE]\n\n") }

// line writes one record of an NDJSON stream.
func (e *eventWriter) line(v any) error { return e.write(string(mustJSON(v)) + "\n") }

func (e *eventWriter) write(record string) error {
	if _, err := io.WriteString(e.w, record); err != nil {
		return err
	}
	return e.flush()
}
