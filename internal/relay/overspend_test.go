package relay

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"iap/internal/audit"
	"iap/internal/limit"
	"iap/policy"
	"iap/tunnel"
)

func TestTheLimitsOfEveryGrantThatARequestRestsOnHold(t *testing.T) {
	s := newOllama(t, strings.TrimSuffix(allowAll, "\n")+`
  - name: tools
    to: ["group:corp/ml-eng"]
    resources: ["*"]
    actions: [tool]
    limits: {requests: 1/1h}
`, counted(3))
	c := client(t, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	send := func(body string) (int, string) {
		r, err := c.Post("http://phi3/v1/responses", "application/json", strings.NewReader(body))
		must(t, err)
		defer r.Body.Close()
		text, _ := io.ReadAll(r.Body)
		return r.StatusCode, string(text)
	}
	const withTool = `{"model":"phi3","input":"hi","tools":[{"type":"web_search"}]}`
	if status, text := send(withTool); status != 200 {
		t.Fatalf("the first with a tool got %d %s", status, text)
	}
	if status, text := send(withTool); status != http.StatusTooManyRequests || !strings.Contains(text, "1 requests/1h of grant tools used") {
		t.Errorf("the second with a tool got %d %s", status, text)
	}
	if status, text := send(`{"model":"phi3","input":"hi"}`); status != 200 {
		t.Errorf("one without a tool got %d %s", status, text)
	}
}

// chatty answers with streams, lists and errors.
func chatty(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	switch {
	case r.URL.Path == "/v1/embeddings":
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"object":"list","data":[],"usage":{"prompt_tokens":7,"total_tokens":7}}`)
	case strings.Contains(string(body), "fail"):
		http.Error(w, `{"error":{"message":"boom"}}`, http.StatusInternalServerError)
	case strings.Contains(string(body), `"stream":true`):
		w.Header().Set("Content-Type", "text/event-stream")
		for range 20 {
			if _, err := io.WriteString(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word\"}}]}\n\n"); err != nil || r.Context().Err() != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
		fmt.Fprint(w, "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":20,\"total_tokens\":29}}\n\ndata: [DONE]\n\n")
	default:
		counted(5)(w, r)
	}
}

// spend sends one request in a way that its number says, and leaves every third at any moment.
func (s *system) spend(clients []*http.Client, bearer string, i int) {
	ctx, cancel := context.WithCancel(within(s.t))
	defer cancel()
	if i%3 == 0 {
		leave := time.AfterFunc(time.Duration(rand.IntN(4000))*time.Microsecond, cancel)
		defer leave.Stop()
	}
	path, body := "/v1/chat/completions", chatBody("phi3", i%2 == 0)
	switch i % 7 {
	case 1:
		path, body = "/v1/embeddings", `{"model":"phi3","input":"hello"}`
	case 2:
		body = strings.Replace(body, "hello", "fail", 1)
	case 3:
		path, body = "/v1/completions", `{"model":"phi3","n":3,"prompt":["a","b"]}`
	}
	target, c := "http://phi3"+path, clients[i%len(clients)]
	if i%4 == 0 {
		target = "https://" + s.name + "/r/phi3" + path
		c = &http.Client{Transport: &http.Transport{TLSClientConfig: s.tls(), DisableKeepAlives: true}}
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(body))
	must(s.t, err)
	q.Header.Set("Content-Type", "application/json")
	if i%4 == 0 {
		q.Header.Set("Authorization", bearer)
	}
	if r, err := c.Do(q); err == nil {
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
}

func TestWhatTheLimiterChargesIsWhatTheAuditSays(t *testing.T) {
	s := newOllama(t, grantsWith(`[{tokens: 900000/1h, requests: 100000/1h, concurrent: 64}, {tokens: 900000/1h, per: grant}]`), chatty)
	u := s.user(nil)
	var clients []*http.Client
	for range 2 {
		clients = append(clients, client(t, u.open(tunnel.Interactive), tunnel.Header{Resource: "phi3"}))
	}
	bearer := strings.TrimPrefix(s.bearer(nil), "Authorization: ")
	var group sync.WaitGroup
	work := make(chan int)
	for range 16 {
		group.Go(func() {
			for i := range work {
				s.spend(clients, bearer, i)
			}
		})
	}
	for i := range 400 {
		work <- i
	}
	close(work)
	group.Wait()
	posted := func(kind string) []audit.Event {
		return s.events(func(e audit.Event) bool {
			return e.Kind == kind && e.Method == http.MethodPost && e.Decision == audit.Allow
		})
	}
	eventually(t, "every request has ended", func() bool { return len(posted(audit.KindDecision)) == len(posted(audit.KindOutcome)) })
	outcomes := posted(audit.KindOutcome)
	spent := int64(0)
	for _, e := range outcomes {
		spent += e.TokensIn + e.TokensOut
	}
	if len(outcomes) < 250 || spent < 250*10 {
		t.Fatalf("%d requests cost %d tokens", len(outcomes), spent)
	}
	must(t, s.relay.limits.Flush(within(t)))
	rule := limit.Rule{
		Grant: "engineers", Per: policy.PerPrincipal, Who: "corp/alice", Concurrent: 64,
		Tokens: []limit.Rate{{N: 900_000, Per: time.Hour}}, Requests: []limit.Rate{{N: 100_000, Per: time.Hour}},
	}
	shared := limit.Rule{Grant: "engineers", Per: policy.PerGrant, Tokens: rule.Tokens}
	all, err := s.relay.limits.Usage(within(t), []limit.Rule{rule, shared})
	must(t, err)
	for _, one := range all {
		want := map[string]int64{"tokens": spent, "requests": int64(len(outcomes))}[one.Kind]
		if one.Used != want || one.Held != 0 {
			t.Errorf("%s per %s: charged %d, held %d; the audit says %d", one.Kind, one.Rule.Per, one.Used, one.Held, want)
		}
	}
}

func TestAnErrorThatTheAgentPutIntoTheAnswerIsWhyItEnded(t *testing.T) {
	s := newSystem(t, allowAll)
	fake := s.enrolFake(false, served{"phi3", "model", ""})
	trailer := make(chan string, 1)
	fake.serve(tunnel.Interactive, func(ctx context.Context, st *tunnel.Stream, _ tunnel.Header) {
		const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
		const body = ": queued position=1\n\ndata: {\"error\":{\"message\":\"waited\",\"code\":\"queue_full\"}}\n\n"
		for err := error(nil); err == nil; _, err = st.ReadHeader(ctx) {
			r, err := http.ReadRequest(st.Reader())
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			_ = st.WriteReply(tunnel.Reply{OK: true}, fmt.Appendf(nil, "%s%x\r\n%s\r\n0\r\n%s\r\n", head, len(body), body, <-trailer))
		}
	}, tunnel.Announcement{Resource: "phi3", Kind: "model", Healthy: true, Server: "openai"})
	c := client(t, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	for i, test := range []struct{ trailer, want string }{
		{tunnel.EndedTrailer + ": queue_full\r\n", "queue_full"},
		{tunnel.EndedTrailer + ": completed\r\n", "refused"}, // no agent's to say
		{"", "upstream_error"},
	} {
		trailer <- test.trailer
		r, text, err := chatOver(t, c, "/v1/chat/completions", "phi3")
		if err != nil || len(r.Trailer) > 0 || !strings.Contains(text, "queue_full") {
			t.Errorf("got %q %v %v", text, r.Trailer, err)
		}
		outcomes := func() []audit.Event { return s.events(func(e audit.Event) bool { return e.Kind == audit.KindOutcome }) }
		eventually(t, "the outcome", func() bool { return len(outcomes()) == i+1 })
		if e := outcomes()[i]; e.Ended != test.want || e.TokensIn+e.TokensOut != 0 {
			t.Errorf("with %q: ended %q, %d tokens; want %q and none", test.trailer, e.Ended, e.TokensIn+e.TokensOut, test.want)
		}
	}
}

// A session lives for hours and may carry millions of connections.
func TestAClosedConnectionIsForgottenByItsSession(t *testing.T) {
	s := newSystem(t, allowAll)
	s.startAgent(served{"db", "tcp", echo(t)})
	dialled := s.user(nil).open(tunnel.Interactive)
	sessions, end := context.WithCancel(context.Background())
	defer end()
	connect := func() (*streamConn, context.Context) {
		c := &streamConn{Stream: mustOpen(t, dialled, "db"), session: &session{ctx: sessions}, closed: make(chan struct{})}
		return c, connContext(context.Background(), c)
	}
	c, _ := connect()
	must(t, c.Close())
	if c.forget() {
		t.Error("the session still held a connection that is closed")
	}
	c, request := connect()
	end()
	<-request.Done() // the end of the session is that of its requests
	must(t, c.Close())
}
