package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"iap/tunnel"
)

// generation is a request as a model server sees it: it goes on until it is told to.
type generation struct {
	request string
	gone    <-chan struct{} // the caller left
	finish  chan string     // the answer: a body of events, or "" for none at all
}

// slowServer is a model server whose generations a test holds in its hands.
type slowServer struct {
	*httptest.Server
	began chan *generation
}

func newSlowServer(t testing.TB) *slowServer {
	t.Helper()
	return startSlowServer(t, httptest.NewServer)
}

func startSlowServer(t testing.TB, start func(http.Handler) *httptest.Server) *slowServer {
	t.Helper()
	s := &slowServer{began: make(chan *generation, 1024)}
	over := make(chan struct{})
	s.Server = start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1/models" && r.Method == http.MethodGet:
			fmt.Fprint(w, `{"object":"list","data":[{"id":"phi3","owned_by":"test"},{"id":"llama3","owned_by":"test"}]}`)
			return
		case r.Method != http.MethodPost:
			http.NotFound(w, r)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		if strings.HasPrefix(r.Header.Get("X-Request-Id"), "whole-") {
			w.Header().Set("Content-Type", "application/json")
			_ = http.NewResponseController(w).Flush()
		}
		if strings.HasPrefix(r.Header.Get("X-Request-Id"), "streams-") {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: {}\n\n")
			_ = http.NewResponseController(w).Flush()
		}
		g := &generation{request: r.Header.Get("X-Request-Id"), gone: r.Context().Done(), finish: make(chan string)}
		s.began <- g
		var answer string
		select {
		case answer = <-g.finish:
		case <-over:
		}
		if answer == "" {
			panic(http.ErrAbortHandler)
		}
		if strings.HasPrefix(answer, "{") {
			w.WriteHeader(http.StatusNotFound)
		} else {
			w.Header().Set("Content-Type", "text/event-stream")
		}
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(func() { close(over); s.Close() })
	return s
}

// next is the generation that begins next.
func (s *slowServer) next(t testing.TB) *generation {
	t.Helper()
	select {
	case g := <-s.began:
		return g
	case <-within(t).Done():
		t.Fatal("no generation began")
		return nil
	}
}

const events = "data: {\"choices\":[]}\n\ndata: [DONE]\n\n"

// atOnce tells waiting clients without delay, so that a test can read that they wait.
func atOnce(a *Agent) {
	a.pace = waitPace{first: time.Nanosecond, look: time.Millisecond, repeat: time.Hour}
}

func (s *slowServer) resource(options string) string {
	return "  - {name: phi3, kind: model, upstream: \"" + s.URL + "\"" + options + "}\n"
}

func queued(principal, id string, stream bool) (tunnel.Header, []byte) {
	h := chatHeader()
	h.Principal, h.Request = principal, id
	body := chat("phi3")
	if stream {
		body = `{"messages":[{"content":"hi","role":"user"}],"model":"phi3","stream":true}`
	}
	return h, []byte(strings.Replace(string(httpRequest("POST", "/v1/chat/completions", body)), "rq-1", id, 1))
}

// open sends a request without waiting for its reply.
func open(t testing.TB, s *tunnel.Session, principal, id string, stream bool) *tunnel.Stream {
	t.Helper()
	h, payload := queued(principal, id, stream)
	st, err := s.Open(within(t), h, payload)
	must(t, err)
	t.Cleanup(func() { st.Abort(tunnel.CodeCanceled) })
	return st
}

func readAnswer(t testing.TB, st *tunnel.Stream) (*http.Response, *bufio.Reader) {
	t.Helper()
	reply, err := st.ReadReply(within(t))
	must(t, err)
	if !reply.OK {
		t.Fatalf("%+v", reply)
	}
	response, err := http.ReadResponse(st.Reader(), nil)
	must(t, err)
	return response, bufio.NewReader(response.Body)
}

func readLine(t testing.TB, r *bufio.Reader) string {
	t.Helper()
	line, err := r.ReadString('\n')
	must(t, err)
	return strings.TrimSpace(line)
}

// TestOneUserWith200RequestsDelaysAnotherByOneGeneration is the fair queue's promise, over real sockets.
func TestOneUserWith200RequestsDelaysAnotherByOneGeneration(t *testing.T) {
	up := newSlowServer(t)
	_, s := startHostileRelay(t).runAs(up.resource(", capacity: 1, queue: {max: 1000, per_principal: 1000}"), atOnce)
	open(t, s, "corp/alice", "alice-0", true)
	running := up.next(t)
	for i := 1; i < 200; i++ {
		st := open(t, s, "corp/alice", fmt.Sprint("alice-", i), true)
		if _, body := readAnswer(t, st); !strings.HasPrefix(readLine(t, body), ": queued position=") {
			t.Fatal("a waiting client was not told so")
		}
	}
	bob := open(t, s, "corp/bob", "bob", true)
	_, body := readAnswer(t, bob)
	if line := readLine(t, body); line != ": queued position=1" {
		t.Errorf("bob was told %q", line)
	}
	running.finish <- events
	g := up.next(t)
	if g.request != "bob" {
		t.Errorf("after the one generation came %s", g.request)
	}
	g.finish <- events
	whole, err := io.ReadAll(body)
	must(t, err)
	if !strings.HasSuffix(string(whole), events) {
		t.Errorf("bob read %q", whole)
	}
	close(up.next(t).finish)
}

func TestFullQueueAnswersWithCodePositionAndTime(t *testing.T) {
	up := newSlowServer(t)
	_, s := startHostileRelay(t).runAs(up.resource(", capacity: 1, queue: {max: 2, per_principal: 1}"), atOnce)
	open(t, s, "corp/alice", "one", true)
	running := up.next(t)
	readAnswer(t, open(t, s, "corp/alice", "two", true))
	h, payload := queued("corp/alice", "three", false)
	if _, reply := send(t, s, h, payload); reply.Code != "queue_full" || reply.RetryAfterMS < 1000 || !strings.Contains(reply.Message, "one of your requests waits for phi3 already, as many as may: the next would be number 2; try again later") {
		t.Errorf("of one principal: %+v", reply)
	}
	readAnswer(t, open(t, s, "corp/bob", "four", true))
	h, payload = queued("corp/carol", "five", false)
	if _, reply := send(t, s, h, payload); reply.Code != "queue_full" || !strings.Contains(reply.Message, "queue of phi3 is full: you would be number 2") { // alice has a generation already
		t.Errorf("of all: %+v", reply)
	}
	list := tunnel.Header{Resource: "phi3", Kind: "model", Action: "list-models", Method: "GET", Path: "/v1/models"}
	if _, reply := send(t, s, list, httpRequest("GET", "/v1/models", "")); !reply.OK {
		t.Errorf("a list needs no slot: %+v", reply)
	}
	close(running.finish)
	for range 2 {
		close(up.next(t).finish)
	}
}

func TestLeavingTheQueueFreesThePlace(t *testing.T) {
	up := newSlowServer(t)
	_, s := startHostileRelay(t).runAs(up.resource(", capacity: 1, queue: {max: 1}"), atOnce)
	open(t, s, "corp/alice", "one", true)
	running := up.next(t)
	two := open(t, s, "corp/alice", "two", true)
	readAnswer(t, two)
	two.Abort(tunnel.CodeCanceled)
	h, payload := queued("corp/alice", "three", true)
	for limit := within(t); ; { // the abort is on its way to the agent
		if _, reply := send(t, s, h, payload); reply.OK {
			break
		}
		must(t, limit.Err())
	}
	running.finish <- events
	if g := up.next(t); g.request != "three" {
		t.Errorf("%s went upstream", g.request)
	} else {
		close(g.finish)
	}
}

// TestStreamThatWaitedEndsWithTheErrorOfItsProtocol: once comments are out, a refusal is an event.
func TestStreamThatWaitedEndsWithTheErrorOfItsProtocol(t *testing.T) {
	up := newSlowServer(t)
	a, s := startHostileRelay(t).runAs(up.resource(", capacity: 1"), atOnce)
	open(t, s, "corp/alice", "one", true)
	running := up.next(t)
	st := open(t, s, "corp/alice", "two", true)
	response, body := readAnswer(t, st)
	if response.StatusCode != 200 || !strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") {
		t.Errorf("%+v", response)
	}
	running.finish <- events
	up.next(t).finish <- `{"error":{"message":"model not found","type":"x"}}`
	rest, err := io.ReadAll(body)
	must(t, err)
	if why := response.Trailer.Get(tunnel.EndedTrailer); why != "upstream_reset" {
		t.Errorf("the relay is told %q", why)
	}
	if text := string(rest); !strings.Contains(text, `"code":"upstream_reset"`) || !strings.Contains(text, "answered 404: model not found") || !strings.Contains(text, "\n\ndata: {") {
		t.Errorf("%q", text)
	}
	a.upstreams[0].queue.limits.maxWait = time.Millisecond // from now on
	open(t, s, "corp/alice", "three", true)
	running = up.next(t)
	st = open(t, s, "corp/alice", "four", true)
	reply, err := st.ReadReply(within(t))
	must(t, err)
	text := reply.Message
	if reply.OK {
		response, err := http.ReadResponse(st.Reader(), nil)
		must(t, err)
		rest, err := io.ReadAll(response.Body)
		must(t, err)
		text = string(rest) + response.Trailer.Get(tunnel.EndedTrailer)
	}
	if !strings.Contains(text+reply.Code, "queue_full") || !strings.Contains(text, "waited 1ms in the queue of phi3") {
		t.Errorf("too old: %q", text)
	}
	close(running.finish)
}

// TestSlotIsHeldUntilTheUpstreamHasStopped has a model server that notices late that its caller left.
func TestSlotIsHeldUntilTheUpstreamHasStopped(t *testing.T) {
	for name, start := range map[string]func(http.Handler) *httptest.Server{"http": httptest.NewServer, "https": httptest.NewTLSServer} {
		t.Run(name, func(t *testing.T) {
			up := startSlowServer(t, start)
			a, s := startHostileRelay(t).runAs(up.resource(", capacity: 1"), func(a *Agent) {
				atOnce(a)
				if up.Certificate() != nil {
					a.transport.TLSClientConfig = up.Client().Transport.(*http.Transport).TLSClientConfig
				}
			})
			st := open(t, s, "corp/alice", "one", false)
			working := up.next(t)
			readAnswer(t, open(t, s, "corp/bob", "two", true))
			st.Abort(tunnel.CodeRevoked)
			<-working.gone // the server knows, and goes on for a while
			select {
			case g := <-up.began:
				t.Errorf("%s began beside a generation that runs", g.request)
			default:
			}
			if q := a.upstreams[0].queue; !slotTaken(q) {
				t.Error("the slot was freed while the upstream worked")
			}
			close(working.finish)
			if g := up.next(t); g.request != "two" {
				t.Errorf("%s", g.request)
			} else {
				close(g.finish)
			}
		})
	}
}

// TestCutStreamHoldsItsSlotToo is the same for an answer that had begun.
func TestCutStreamHoldsItsSlotToo(t *testing.T) {
	up := newSlowServer(t)
	a, s := startHostileRelay(t).runAs(up.resource(", capacity: 1"), atOnce)
	st := open(t, s, "corp/alice", "streams-one", true)
	_, body := readAnswer(t, st)
	if line := readLine(t, body); line != "data: {}" {
		t.Fatalf("%q", line)
	}
	working := up.next(t)
	st.Abort(tunnel.CodeRevoked)
	<-working.gone
	if !slotTaken(a.upstreams[0].queue) {
		t.Error("the slot was freed while the upstream worked")
	}
	open(t, s, "corp/bob", "two", false)
	close(working.finish)
	if g := up.next(t); g.request != "two" {
		t.Errorf("%s", g.request)
	} else {
		close(g.finish)
	}
}

// TestAnswerThatIsNoStreamHoldsItsSlotToo has a model server that answers one who waited for a stream with a whole
// answer: it is refused at its head, and the server goes on for a while.
func TestAnswerThatIsNoStreamHoldsItsSlotToo(t *testing.T) {
	up := newSlowServer(t)
	a, s := startHostileRelay(t).runAs(up.resource(", capacity: 1"), atOnce)
	open(t, s, "corp/alice", "one", true)
	running := up.next(t)
	_, body := readAnswer(t, open(t, s, "corp/alice", "whole-two", true))
	running.finish <- events
	working := up.next(t)
	if text, err := io.ReadAll(body); err != nil || !strings.Contains(string(text), "did not answer with a stream") {
		t.Errorf("%q, %v", text, err)
	}
	<-working.gone
	if !slotTaken(a.upstreams[0].queue) {
		t.Error("the slot was freed while the upstream worked")
	}
	close(working.finish)
}

func slotTaken(q *queue) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.running > 0
}

func TestUpstreamThatNeverStopsKeepsItsSlotForABoundedTime(t *testing.T) {
	up := newSlowServer(t)
	_, s := startHostileRelay(t).runAs(up.resource(", capacity: 1"), func(a *Agent) { atOnce(a); a.lingers.limit = time.Millisecond })
	st := open(t, s, "corp/alice", "one", false)
	stuck := up.next(t)
	defer close(stuck.finish)
	st.Abort(tunnel.CodeCanceled)
	open(t, s, "corp/bob", "two", true)
	close(up.next(t).finish)
}

// TestStoppingAgentWaitsForNoUpstream: what lingers is closed and joined.
func TestStoppingAgentWaitsForNoUpstream(t *testing.T) {
	up := newSlowServer(t)
	r := startHostileRelay(t)
	a := r.agent(r.agentConfig(up.resource(", capacity: 1")))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	s := r.session()
	st := open(t, s, "corp/alice", "one", false)
	stuck := up.next(t)
	defer close(stuck.finish)
	st.Abort(tunnel.CodeCanceled)
	<-stuck.gone
	cancel()
	select {
	case err := <-done:
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-within(t).Done():
		t.Fatal("the agent does not stop")
	}
	if slotTaken(a.upstreams[0].queue) {
		t.Error("a slot is still taken")
	}
}
