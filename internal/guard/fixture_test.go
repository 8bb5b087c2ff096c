package guard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"iap/internal/modelapi"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a guard between a real HTTP server and a scripted upstream.
type fixture struct {
	t        *testing.T
	guard    *Guard
	resource Resource
	caller   *Caller
	server   *httptest.Server
	base     context.Context
	end      context.CancelCauseFunc // ends every request's context with a cause

	mu       sync.Mutex // guards what follows
	events   []Event
	steps    []string
	forwards []*Request
	changed  *sync.Cond
}

type option func(*fixture)

// newFixture serves an Ollama of which all is allowed and every request answered "ok" as JSON.
func newFixture(t *testing.T, options ...option) *fixture {
	f := &fixture{t: t, resource: Resource{Name: "phi3", Kind: KindModel, Server: "ollama"}, caller: &Caller{Principal: "corp/ann", Via: "tunnel"}}
	f.changed = sync.NewCond(&f.mu)
	f.base, f.end = context.WithCancelCause(context.Background())
	var ids atomic.Int64
	f.guard = &Guard{
		Decide: func(context.Context, Question) Decision { return Decision{Allow: true, Reason: "allowed", Grant: "g1"} },
		Record: func(context.Context, Event) error { return nil },
		NewID:  func() string { return "req-" + strconv.FormatInt(ids.Add(1), 10) },
		Forward: func(context.Context, *Request) (*Response, error) {
			return answerWith(200, "application/json", `{"ok":true}`), nil
		},
	}
	for _, o := range options {
		o(f)
	}
	f.observe()
	f.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.guard.Handler(f.resource, f.caller).ServeHTTP(w, r)
	}))
	f.server.Config.DisableGeneralOptionsHandler = true
	f.server.Config.BaseContext = func(net.Listener) context.Context { return f.base }
	f.server.Start()
	t.Cleanup(func() {
		f.end(nil)
		f.server.CloseClientConnections()
		f.server.Close()
		f.server.Client().CloseIdleConnections()
	})
	return f
}

// observe notes what the guard does, in order, and checks that what it forwards is what it decided on.
func (f *fixture) observe() {
	record, forward := f.guard.Record, f.guard.Forward
	f.guard.Record = func(ctx context.Context, e Event) error {
		err := record(ctx, e)
		f.note(func() {
			f.events = append(f.events, e)
			f.steps = append(f.steps, "record "+e.Kind+" "+e.Decision)
		})
		return err
	}
	f.guard.Forward = func(ctx context.Context, r *Request) (*Response, error) {
		f.note(func() {
			f.forwards = append(f.forwards, r)
			f.steps = append(f.steps, "forward")
		})
		if r.Resource.Kind == KindModel {
			f.verify(r)
		}
		return forward(ctx, r)
	}
}

func (f *fixture) verify(r *Request) {
	path, query, _ := strings.Cut(r.Target, "?")
	c, err := modelapi.Default().Verify(modelapi.Input{
		Server: r.Resource.Server, Only: r.Resource.Only, Method: r.Method, Path: path, Query: query,
		ContentType: r.Header.Get("Content-Type"), Body: r.Body, Upgrade: r.Header.Get("Upgrade"),
	})
	if err != nil || c.Action != r.Class.Action || c.Model != r.Class.Model {
		f.t.Errorf("forwarded %s %s is %+v, %v; decided on %+v", r.Method, r.Target, c, err, r.Class)
	}
}

func (f *fixture) note(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	f.changed.Broadcast()
}

// outcome waits for the outcome of the only request.
func (f *fixture) outcome() Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		for _, e := range f.events {
			if e.Kind == EventOutcome {
				return e
			}
		}
		f.changed.Wait()
	}
}

func (f *fixture) recorded() []Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Event(nil), f.events...)
}

func (f *fixture) forwarded() []*Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*Request(nil), f.forwards...)
}

func (f *fixture) taken() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.steps, ", ")
}

const chatBody = `{"model":"phi3","messages":[{"role":"user","content":"hi"}],"stream":true}`

// request builds one; header is "Name: value" lines.
func (f *fixture) request(method, target, body string, header ...string) *http.Request {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequest(method, f.server.URL+target, reader)
	if err != nil {
		f.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header[http.CanonicalHeaderKey(name)] = append(r.Header[http.CanonicalHeaderKey(name)], value)
	}
	return r
}

// do sends a request without following redirects. The body is closed with the test.
func (f *fixture) do(r *http.Request) *http.Response {
	f.t.Helper()
	response, err := f.server.Client().Transport.RoundTrip(r)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

func (f *fixture) chat(header ...string) *http.Response {
	f.t.Helper()
	return f.do(f.request("POST", "/v1/chat/completions", chatBody, header...))
}

func readAll(t *testing.T, response *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("read answer: %v after %q", err, body)
	}
	return string(body)
}

// raw sends bytes on a connection of their own and returns all that comes back until it is closed.
func (f *fixture) raw(bytes string) string {
	f.t.Helper()
	c, err := net.Dial("tcp", f.server.Listener.Addr().String())
	if err != nil {
		f.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, bytes); err != nil {
		f.t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		f.t.Fatal(err)
	}
	out, _ := io.ReadAll(c) // a reset ends it as well
	return string(out)
}

// rawOpen sends bytes and returns the answers read until the server closes, with our side left open.
func (f *fixture) rawOpen(bytes string) string {
	f.t.Helper()
	c, err := net.Dial("tcp", f.server.Listener.Addr().String())
	if err != nil {
		f.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, bytes); err != nil {
		f.t.Fatal(err)
	}
	out, _ := io.ReadAll(bufio.NewReader(c))
	return string(out)
}

func answerWith(status int, contentType, body string) *Response {
	h := http.Header{"Content-Length": {strconv.Itoa(len(body))}}
	if contentType != "" {
		h.Set("Content-Type", contentType)
	}
	return &Response{Status: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), Agent: "gpu1"}
}

// script is an answer's body that a test feeds piece by piece.
type script struct {
	pieces chan string
	fail   error // what follows the last piece; nil: io.EOF
	rest   string
	closed chan struct{}
	once   sync.Once
}

func newScript() *script { return &script{pieces: make(chan string), closed: make(chan struct{})} }

func (s *script) Read(p []byte) (int, error) {
	if s.rest == "" {
		select {
		case piece, ok := <-s.pieces:
			if !ok {
				if s.fail != nil {
					return 0, s.fail
				}
				return 0, io.EOF
			}
			s.rest = piece
		case <-s.closed:
			return 0, errors.New("closed")
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *script) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// streaming makes the fixture answer with a script.
func streaming(s *script, contentType string) option {
	return func(f *fixture) {
		f.guard.Forward = func(context.Context, *Request) (*Response, error) {
			return &Response{Status: 200, Header: http.Header{"Content-Type": {contentType}}, Body: s, Agent: "gpu1"}, nil
		}
	}
}

func event(i int) string { return fmt.Sprintf("data: {\"n\":%d}\n\n", i) }
