package relay

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"

	"iap/internal/audit"
	"iap/internal/relay/settings"
	"iap/tunnel"
)

const phi3Only = `version: 1
grants:
  - name: phi3
    to: ["group:corp/ml-eng"]
    resources: [phi3]
    actions: [chat, list-models]
`

func TestUngrantedAndUnknownResourcesGetTheSameAnswer(t *testing.T) {
	m := newModelServer(t, func(w http.ResponseWriter, _ *http.Request) { completion(w, "x") })
	s := newSystem(t, phi3Only)
	s.startAgent(served{"phi3", "model", m.URL}, served{"secret", "model", m.URL}, served{"secret-db", "tcp", echo(t)}, served{"secret-web", "http", "http://" + freeAddress(t)})
	session := s.user(nil).open(tunnel.Interactive)
	var first *tunnel.Reply
	for _, name := range []string{"absent", "secret", "secret-db", "secret-web", "phi3\x00", "PHI3", "phi3 ", "*", "../phi3"} {
		_, reply, err := openStream(within(t), session, tunnel.Header{Resource: name, Kind: "model"})
		must(t, err)
		reply.Message = strings.ReplaceAll(reply.Message, strconv.Quote(name), "…")
		if first == nil {
			first = &reply
		}
		if reply.OK || reply.Code != "policy_denied" || !reflect.DeepEqual(reply, *first) {
			t.Errorf("%q: %+v, want %+v", name, reply, *first)
		}
	}
	if m.hits.Load() != 0 {
		t.Errorf("the upstream saw %d requests", m.hits.Load())
	}
	list, err := api(t, session).Resources(within(t))
	must(t, err)
	if len(list.Resources) != 1 || list.Resources[0].Name != "phi3" {
		t.Errorf("resources: %+v", list)
	}
	denials := s.events(func(e audit.Event) bool { return e.Kind == audit.KindDecision && e.Decision == audit.Deny })
	counted := s.events(func(e audit.Event) bool { return e.Kind == audit.KindDeniedCount })
	if len(denials)+len(counted) == 0 {
		t.Error("no denial was recorded")
	}
}

func TestIdentityAndRightsOfAHeaderAreIgnored(t *testing.T) {
	m := newModelServer(t, func(w http.ResponseWriter, r *http.Request) { completion(w, r.Header.Get("X-Iap-Principal")) })
	s := newSystem(t, phi3Only)
	s.startAgent(served{"phi3", "model", m.URL}, served{"secret", "tcp", echo(t)})
	session := s.user(nil).open(tunnel.Interactive)
	lies := tunnel.Header{
		Resource: "phi3", Kind: "tcp", Principal: "corp/root", Action: "server-admin", Grant: "all", Session: "other", Priority: 1000,
		Method: "DELETE", Path: "/", Seq: 7, MAC: []byte("x"),
	}
	if text := chatOK(t, client(t, session, lies), chatBody("phi3", false)); !strings.Contains(text, `"corp/alice"`) {
		t.Errorf("the model server saw %s", text)
	}
	lies.Resource = "secret"
	if _, reply, err := openStream(within(t), session, lies); err != nil || reply.OK {
		t.Errorf("%+v, %v", reply, err)
	}
	lies.Service = "admin"
	if _, reply, err := openStream(within(t), session, lies); err != nil || reply.OK {
		t.Errorf("%+v, %v", reply, err)
	}
}

func TestPrincipalsStreamsAreCappedOverAllSessions(t *testing.T) {
	s := newSystem(t, allowAll)
	s.startAgent(served{"db", "tcp", echo(t)}, served{"web", "http", "http://127.0.0.1:9"})
	alice := s.user(nil)
	sessions := []*tunnel.Session{alice.open(tunnel.Interactive), alice.open(tunnel.Bulk), s.user(nil).open(tunnel.Bulk)}
	var mu sync.Mutex
	got := map[string]int{}
	open := 0
	var opening sync.WaitGroup
	for i := range 2000 {
		session := sessions[i%3]
		opening.Go(func() {
			st, reply, err := openStream(within(t), session, tunnel.Header{Resource: "web"})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				got[tunnel.CodeOf(err).String()]++
			case reply.OK:
				open++
			default:
				got[reply.Code]++
				_ = st.Close()
			}
		})
	}
	opening.Wait()
	if open > s.cfg.Sessions.StreamsPerPrincipal || open < s.cfg.Sessions.StreamsPerPrincipal/2 || got["too_many_streams"] != 2000-open {
		t.Errorf("%d of 2,000 streams are open, refused %v", open, got)
	}
	bob := s.user(map[string]any{"sub": "bob"}).open(tunnel.Bulk)
	ping(t, mustOpen(t, bob, "db")) // somebody else is not in the way
	for _, session := range sessions {
		_ = session.Close(tunnel.CodeNone, "")
	}
	eventually(t, "all places are free again", func() bool {
		s.relay.sessions.mu.Lock()
		defer s.relay.sessions.mu.Unlock()
		return s.relay.sessions.principals["corp/alice"] == nil
	})
}

func TestPrincipalsSessionsAreCapped(t *testing.T) {
	s := newSystem(t, allowAll, func(c *settings.Config) { c.Sessions.SessionsPerPrincipal = 3 })
	for range 3 {
		s.user(nil).open(tunnel.Interactive)
	}
	session, err := s.user(nil).present(tunnel.Interactive, s.user(nil).token())
	if err == nil {
		await(t, session.Done(), "the fourth session ends")
		err = session.Err()
	}
	if got := tunnel.CodeOf(err); got != tunnel.CodeTooManyStreams {
		t.Errorf("got %v", err)
	}
	s.user(map[string]any{"sub": "bob"}).open(tunnel.Interactive)
}

func TestPeerThatStopsReadingHoldsUpNobodyElse(t *testing.T) {
	big := strings.Repeat("x", 1<<20)
	s, _ := newWeb(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/endless" {
			fmt.Fprint(w, "prompt")
			return
		}
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, big); err != nil {
				return
			}
		}
	})
	alice := s.user(nil).open(tunnel.Bulk)
	for range 4 { // answers that nobody reads, on the agent session that bob needs as well
		st := mustOpen(t, alice, "web")
		_, err := io.WriteString(st, "GET /endless HTTP/1.1\r\nHost: web\r\n\r\n")
		must(t, err)
		var b [64 << 10]byte
		_, err = io.ReadFull(st, b[:])
		must(t, err)
	}
	bob := client(t, s.user(map[string]any{"sub": "bob"}).open(tunnel.Interactive), tunnel.Header{Resource: "web"})
	for range 50 {
		r, err := bob.Get("http://web/")
		must(t, err)
		text, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || string(text) != "prompt" {
			t.Fatalf("bob got %q, %v", text, err)
		}
	}
}

func TestAgentThatOpensStreamsIsRefused(t *testing.T) {
	s := newSystem(t, allowAll)
	s.startAgent(served{"db", "tcp", echo(t)})
	fake := s.enrolFake(false, served{"web", "http", ""})
	session := fake.serve(tunnel.Bulk, func(context.Context, *tunnel.Stream, tunnel.Header) {}, tunnel.Announcement{Resource: "web", Kind: "http"})
	for _, h := range []tunnel.Header{{Resource: "db"}, {Resource: "web"}, {Service: "api"}} {
		st, err := session.Open(within(t), h, []byte("GET /v1/whoami HTTP/1.1\r\nHost: x\r\n\r\n"))
		if err == nil {
			_, err = st.ReadReply(within(t))
		}
		if got := tunnel.CodeOf(err); got != tunnel.CodeRefused {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

func TestAgentAnnouncesNothingButWhatItIsEnrolledFor(t *testing.T) {
	s := newSystem(t, allowAll)
	s.startAgent(served{"db", "tcp", echo(t)})
	fake := s.enrolFake(false, served{"web", "http", ""})
	web := tunnel.Announcement{Resource: "web", Kind: "http", Healthy: true}
	session := fake.serve(tunnel.Bulk, func(context.Context, *tunnel.Stream, tunnel.Header) {}, web)
	for _, one := range []tunnel.Announcement{
		{Resource: "db", Kind: "tcp"},
		{Resource: "*", Kind: "http"},
		{Resource: "web", Kind: "model"},
		{Resource: "web\u200b", Kind: "http"},
		{Resource: "../db", Kind: "tcp"},
		{Resource: "", Kind: "http"},
		{Resource: "web", Kind: ""},
	} {
		if err := session.Announce(within(t), []tunnel.Announcement{web, one}); tunnel.CodeOf(err) != tunnel.CodeNotAnnounced {
			t.Errorf("%+v: %v", one, err)
		}
	}
	if n, _ := s.relay.agents.online("db"); n != 1 {
		t.Errorf("%d agents serve db", n)
	}
	if n, _ := s.relay.agents.online("web"); n != 1 {
		t.Errorf("a refused announcement changed the one before: %d agents serve web", n)
	}
	ping(t, mustOpen(t, s.user(nil).open(tunnel.Bulk), "db"))
}

func TestUsersCannotAnnounceAndAgentsHaveNoAPI(t *testing.T) {
	s := newSystem(t, allowAll)
	session := s.user(nil).open(tunnel.Interactive)
	if err := session.Announce(within(t), []tunnel.Announcement{{Resource: "web", Kind: "http"}}); err == nil {
		t.Error("a user announced a resource")
	}
}

func TestBytesOfAStreamAreAccounted(t *testing.T) {
	s := newSystem(t, allowAll)
	s.startAgent(served{"db", "tcp", echo(t)})
	st := mustOpen(t, s.user(nil).open(tunnel.Bulk), "db")
	payload := strings.Repeat("p", 100_000)
	var sending sync.WaitGroup
	sending.Go(func() { _, _ = io.WriteString(st, payload); _ = st.CloseWrite() })
	back, err := io.ReadAll(st)
	sending.Wait()
	if err != nil || string(back) != payload {
		t.Fatalf("%d bytes came back, %v", len(back), err)
	}
	_ = st.Close()
	e := s.awaitEvent("the stream's end", func(e audit.Event) bool { return e.Kind == audit.KindOutcome && e.Resource == "db" })
	if e.BytesIn != 100_000 || e.BytesOut != 100_000 || e.Ended != "completed" || e.Agent == "" || e.Principal != "corp/alice" {
		t.Errorf("outcome %+v", e)
	}
	d := s.awaitEvent("its decision", func(d audit.Event) bool { return d.Kind == audit.KindDecision && d.Request == e.Request })
	if d.Seq >= e.Seq || d.Decision != audit.Allow || d.Grant != "engineers" {
		t.Errorf("decision %+v", d)
	}
}

func TestOfflineAndUnreachableAreToldApart(t *testing.T) {
	s := newSystem(t, allowAll)
	dead := freeAddress(t)
	a := s.startAgent(served{"db", "tcp", dead}, served{"web", "http", "http://" + dead})
	session := s.user(nil).open(tunnel.Bulk)
	_, reply, err := openStream(within(t), session, tunnel.Header{Resource: "db"})
	if err != nil || reply.OK || reply.Code != "upstream_unreachable" {
		t.Errorf("no upstream: %+v, %v", reply, err)
	}
	c := client(t, session, tunnel.Header{Resource: "web"})
	r, err := c.Get("http://web/")
	must(t, err)
	r.Body.Close()
	if r.StatusCode != http.StatusBadGateway || r.Header.Get("X-Iap-Error") != "upstream_unreachable" {
		t.Errorf("no upstream: %s, %v", r.Status, r.Header)
	}
	must(t, a.stop())
	eventually(t, "the agent is gone", func() bool { n, _ := s.relay.agents.online("web"); return n == 0 })
	_, reply, err = openStream(within(t), session, tunnel.Header{Resource: "db"})
	if err != nil || reply.OK || reply.Code != "agent_offline" {
		t.Errorf("no agent: %+v, %v", reply, err)
	}
	r, err = c.Get("http://web/")
	must(t, err)
	r.Body.Close()
	if r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
		t.Errorf("no agent: %s, %v", r.Status, r.Header)
	}
}

func TestHealthyAgentIsPreferredToABrokenOne(t *testing.T) {
	m := newModelServer(t, func(w http.ResponseWriter, _ *http.Request) { completion(w, "good") })
	s := newSystem(t, allowAll)
	s.startAgent(served{"phi3", "model", "http://" + freeAddress(t)}) // its model server is down
	s.startAgent(served{"phi3", "model", m.URL})
	c := client(t, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	for range 20 {
		r, err := postChat(c, chatBody("phi3", false))
		must(t, err)
		r.Body.Close()
		if r.StatusCode != 200 {
			t.Fatalf("a request went to the agent whose model server is down: %s", r.Status)
		}
	}
}

func TestLostAgentEndsItsStreamsVisibly(t *testing.T) {
	s := newSystem(t, allowAll)
	fake := s.enrolFake(false, served{"web", "http", ""})
	session := fake.serve(tunnel.Bulk, func(ctx context.Context, st *tunnel.Stream, _ tunnel.Header) {
		_ = st.WriteReply(tunnel.Reply{OK: true}, []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"))
		<-ctx.Done()
	}, tunnel.Announcement{Resource: "web", Kind: "http", Healthy: true})
	c := client(t, s.user(nil).open(tunnel.Bulk), tunnel.Header{Resource: "web"})
	r, err := c.Get("http://web/")
	must(t, err)
	defer r.Body.Close()
	_ = session.Close(tunnel.CodeNone, "")
	if text, err := io.ReadAll(r.Body); err == nil {
		t.Errorf("a lost agent looked like the end of the answer: %q", text)
	}
	s.awaitEvent("outcome agent_lost", func(e audit.Event) bool { return e.Kind == audit.KindOutcome && e.Ended == "agent_lost" })
	eventually(t, "nothing of the agent is left", func() bool {
		s.relay.agents.mu.Lock()
		defer s.relay.agents.mu.Unlock()
		return len(s.relay.agents.links) == 0
	})
}

func TestUnknownWordsOfAnAgentAreARefusal(t *testing.T) {
	s := newSystem(t, allowAll)
	fake := s.enrolFake(false, served{"db", "tcp", ""})
	fake.serve(tunnel.Bulk, func(_ context.Context, st *tunnel.Stream, _ tunnel.Header) {
		_ = st.WriteReply(tunnel.Reply{Code: "x\x1b[2J", Message: "<script>"}, nil)
		_ = st.Close()
	}, tunnel.Announcement{Resource: "db", Kind: "tcp", Healthy: true})
	_, reply, err := openStream(within(t), s.user(nil).open(tunnel.Bulk), tunnel.Header{Resource: "db"})
	if err != nil || reply.OK || reply.Code == "" || reply.Code == "none" || strings.ContainsAny(reply.Code+reply.Message, "\x1b<") {
		t.Errorf("%+v, %v", reply, err)
	}
	e := s.awaitEvent("the outcome", func(e audit.Event) bool { return e.Kind == audit.KindOutcome && e.Resource == "db" })
	if e.Ended == "" || e.Ended == "none" {
		t.Errorf("%+v", e)
	}
}
