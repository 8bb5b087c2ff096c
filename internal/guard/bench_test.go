package guard

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
)

// sink is a response writer that only counts.
type sink struct {
	header  http.Header
	flushes int
	n       int64
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(int)             {}
func (s *sink) Write(p []byte) (int, error) { s.n += int64(len(p)); return len(p), nil }
func (s *sink) FlushError() error           { s.flushes++; return nil }

// tokens gives one event for each Read, n times.
type tokens struct {
	event []byte
	n     int
}

func (b *tokens) Read(p []byte) (int, error) {
	if b.n == 0 {
		return 0, io.EOF
	}
	b.n--
	return copy(p, b.event), nil
}
func (b *tokens) Close() error { return nil }

func benchGuard(body func() io.ReadCloser) http.Handler {
	g := &Guard{
		Decide: func(context.Context, Question) Decision { return Decision{Allow: true} },
		Record: func(context.Context, Event) error { return nil },
		NewID:  func() string { return "1" },
		Forward: func(context.Context, *Request) (*Response, error) {
			return &Response{Status: 200, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: body()}, nil
		},
	}
	return g.Handler(Resource{Kind: KindModel, Server: "ollama"}, &Caller{})
}

func serveOnce(b *testing.B, h http.Handler, w *sink) {
	r, err := http.NewRequest("POST", "http://x/v1/chat/completions", strings.NewReader(chatBody))
	if err != nil {
		b.Fatal(err)
	}
	r.RequestURI, r.Header = "/v1/chat/completions", http.Header{"Content-Type": {"application/json"}}
	h.ServeHTTP(w, r)
}

// BenchmarkToken is the cost of passing one token on.
func BenchmarkToken(b *testing.B) {
	event := []byte(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word"}}]}` + "\n\n")
	h := benchGuard(func() io.ReadCloser { return &tokens{event: event, n: b.N} })
	w := &sink{header: http.Header{}}
	b.SetBytes(int64(len(event)))
	b.ReportAllocs()
	b.ResetTimer()
	serveOnce(b, h, w)
	if w.flushes != b.N+1 {
		b.Fatalf("%d flushes for %d tokens", w.flushes, b.N)
	}
}

// BenchmarkBulk is an answer that comes as fast as it is taken.
func BenchmarkBulk(b *testing.B) {
	data := bytes.Repeat([]byte("x"), 64<<20)
	h := benchGuard(func() io.ReadCloser { return io.NopCloser(struct{ io.Reader }{bytes.NewReader(data)}) })
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		serveOnce(b, h, &sink{header: http.Header{}})
	}
}

// BenchmarkRequest is all the guard does for a small chat, without network, policy and disk.
func BenchmarkRequest(b *testing.B) {
	h := benchGuard(func() io.ReadCloser { return &tokens{event: []byte("data: {}\n\n"), n: 1} })
	b.ReportAllocs()
	for b.Loop() {
		serveOnce(b, h, &sink{header: http.Header{}})
	}
}
