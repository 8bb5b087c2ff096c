package relay

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"iap/internal/audit"
	"iap/tunnel"
)

// TestDecisionIsInTheFileBeforeTheUpstreamSeesTheRequest has the upstream itself look for the record.
func TestDecisionIsInTheFileBeforeTheUpstreamSeesTheRequest(t *testing.T) {
	var dir atomic.Pointer[string]
	found := func(request string) bool {
		return len(readAudit(t, *dir.Load(), func(e audit.Event) bool {
			return e.Kind == audit.KindDecision && e.Decision == audit.Allow && e.Request == request
		})) == 1
	}
	m := newModelServer(t, func(w http.ResponseWriter, r *http.Request) {
		completion(w, fmt.Sprint("recorded ", found(r.Header.Get("X-Request-Id"))))
	})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id := r.Header.Get("X-Request-Id"); id != "" {
			fmt.Fprint(w, "recorded ", found(id))
		}
	}))
	t.Cleanup(web.Close)
	db, seen := watchedTCP(t, func() bool {
		return len(readAudit(t, *dir.Load(), func(e audit.Event) bool { return e.Kind == audit.KindDecision && e.Resource == "db" })) > 0
	})
	s := prepareSystem(t, allowAll)
	dir.Store(&s.cfg.Audit.Dir)
	s.start()
	s.startAgent(served{"phi3", "model", m.URL}, served{"web", "http", web.URL}, served{"db", "tcp", db})
	session := s.user(nil).open(tunnel.Interactive)
	models, pages := client(t, session, tunnel.Header{Resource: "phi3"}), client(t, session, tunnel.Header{Resource: "web"})
	for range 20 {
		if text := chatOK(t, models, chatBody("phi3", false)); !strings.Contains(text, "recorded true") {
			t.Fatalf("the model saw an unrecorded request: %s", text)
		}
		r, err := pages.Get("http://web/")
		must(t, err)
		text, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if string(text) != "recorded true" {
			t.Fatalf("the upstream saw an unrecorded request: %s", text)
		}
	}
	mustOpen(t, session, "db").Abort(tunnel.CodeCanceled)
	if !await(t, seen, "the database is dialled for the user") {
		t.Error("the database was dialled before the record")
	}
}

// watchedTCP reports for each connection that is no probe whether holds was true when it came.
func watchedTCP(t testing.TB, holds func() bool) (string, <-chan bool) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	seen := make(chan bool, 16)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			before := holds()
			serving.Go(func() {
				defer conn.Close()
				var b [1]byte
				if n, _ := conn.Read(b[:]); n == 0 { // a probe speaks HTTP or, like this user, nothing at all
					seen <- before
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().String(), lastOf(seen)
}

// lastOf passes on only true, or the value there is when nothing better comes: an agent's own dial-up probe also sends
// nothing.
func lastOf(c chan bool) <-chan bool {
	out := make(chan bool, 1)
	go func() {
		for v := range c {
			if v {
				out <- true
				return
			}
		}
	}()
	return out
}

func TestAU03NothingPassesWhileTheAuditCannotWrite(t *testing.T) {
	m := newModelServer(t, func(w http.ResponseWriter, _ *http.Request) { completion(w, "x") })
	var pages atomic.Int64
	web := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Request-Id") != "" {
			pages.Add(1)
		}
	}))
	t.Cleanup(web.Close)
	s := newSystem(t, allowAll)
	s.startAgent(served{"phi3", "model", m.URL}, served{"web", "http", web.URL}, served{"db", "tcp", echo(t)})
	session := s.user(nil).open(tunnel.Interactive)
	models, kept := client(t, session, tunnel.Header{Resource: "phi3"}), client(t, session, tunnel.Header{Resource: "web"})
	chatOK(t, models, chatBody("phi3", false)) // a connection from before
	r, err := kept.Get("http://web/")
	must(t, err)
	_, _ = io.Copy(io.Discard, r.Body)
	r.Body.Close()
	hits, seen := m.hits.Load(), pages.Load()
	token := s.parsedToken(true, served{"late", "http", ""})
	s.closeAudit()

	for name, c := range map[string]*http.Client{"phi3": models, "web": kept} {
		r, err := c.Get("http://" + name + "/v1/models")
		must(t, err)
		text, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if r.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(text), "audit_unavailable") && r.Header.Get("X-Iap-Error") != "audit_unavailable" {
			t.Errorf("%s: %s %v %s", name, r.Status, r.Header, text)
		}
	}
	for _, resource := range []string{"phi3", "web", "db"} {
		if _, reply, err := openStream(within(t), session, tunnel.Header{Resource: resource}); err != nil || reply.Code != "audit_unavailable" {
			t.Errorf("stream to %s: %+v, %v", resource, reply, err)
		}
	}
	other := s.user(nil)
	stranger, err := other.present(tunnel.Interactive, other.token())
	if got := refusedWith(t, stranger, err); got != tunnel.CodeAuditUnavailable {
		t.Errorf("login: %v", err)
	}
	if _, err := session.Refresh(within(t), s.user(nil).token()); tunnel.CodeOf(err) != tunnel.CodeAuditUnavailable {
		t.Errorf("refresh: %v", err)
	}
	if r, _ := s.ask("/r/phi3/v1/models", s.bearer(nil)); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("front door: %s", r.Status)
	}
	if _, err := s.admin.ReloadPolicy(within(t)); err == nil {
		t.Error("the policy was reloaded without a record")
	}
	if _, _, err := s.postJoin(token); err == nil {
		t.Error("an agent was enrolled without a record")
	}
	agents, err := s.admin.Agents(within(t))
	must(t, err)
	if len(agents) != 1 {
		t.Errorf("an agent that could not be recorded stays enrolled: %+v", agents)
	}
	if m.hits.Load() != hits || pages.Load() != seen {
		t.Errorf("upstreams saw %d and %d requests more", m.hits.Load()-hits, pages.Load()-seen)
	}
	must(t, errorOf(s.admin.KillSession(within(t), session.ID(), ""))) // what takes rights away goes on
	await(t, session.Done(), "the session is killed")
}

func TestEveryRequestHasOneDecisionAndOneOutcome(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(mixed))
	t.Cleanup(up.Close)
	s := newSystem(t, allowAll)
	a := s.startAgent(served{"web", "http", up.URL}, served{"db", "tcp", echo(t)})
	var callers sync.WaitGroup
	for worker := range 8 {
		c := client(t, s.user(nil).open(tunnel.Bulk), tunnel.Header{Resource: "web"})
		session := s.user(map[string]any{"sub": "mallory", "groups": []string{"guests"}}).open(tunnel.Interactive)
		callers.Go(func() {
			for i := range 20 {
				mixedCall(t, c, fmt.Sprintf("w%d-%d", worker, i), i%5)
			}
			for range 5 {
				if _, reply, err := openStream(context.Background(), session, tunnel.Header{Resource: "db"}); err != nil || reply.OK {
					t.Errorf("mallory: %+v %v", reply, err)
				}
			}
		})
	}
	callers.Wait()
	must(t, a.stop())
	must(t, s.end())
	decisions, outcomes := map[string]int{}, map[string]int{}
	sessions := map[string]int{}
	for _, e := range s.events(func(audit.Event) bool { return true }) {
		switch {
		case e.Kind == audit.KindDecision && e.Decision == audit.Allow:
			decisions[e.Request]++
		case e.Kind == audit.KindOutcome:
			outcomes[e.Request]++
			if e.Ended == "" || e.Ended == "internal" || e.Ended == "none" {
				t.Errorf("an outcome says nothing: %+v", e)
			}
		case e.Kind == audit.KindSession && e.Reason == "ended":
			sessions[e.Session]++
		}
	}
	if len(decisions) == 0 || len(decisions) != len(outcomes) {
		t.Errorf("%d decisions and %d outcomes", len(decisions), len(outcomes))
	}
	for id, n := range decisions {
		if n != 1 || outcomes[id] != 1 {
			t.Errorf("%s: %d decisions, %d outcomes", id, n, outcomes[id])
		}
	}
	logins := s.events(func(e audit.Event) bool {
		return (e.Kind == audit.KindLogin || e.Kind == audit.KindAgent && e.Reason == "") && e.Decision == audit.Allow
	})
	if len(sessions) != len(logins) {
		t.Errorf("%d sessions began, the end of %d is recorded", len(logins), len(sessions))
	}
}

// TestStopRecordsTheEndOfEverySession ends relays under living sessions: whoever came must be seen to leave.
func TestStopRecordsTheEndOfEverySession(t *testing.T) {
	for range 3 {
		s := newSystem(t, allowAll)
		s.startAgent(served{"db", "tcp", echo(t)})
		for range 5 {
			ping(t, mustOpen(t, s.user(nil).open(tunnel.Bulk), "db"))
		}
		must(t, s.end())
		began, ended := map[string]bool{}, 0
		for _, e := range s.events(func(audit.Event) bool { return true }) {
			switch {
			case e.Kind == audit.KindSession && e.Reason == "ended":
				ended++
			case e.Kind == audit.KindLogin && e.Decision == audit.Allow, e.Kind == audit.KindAgent && e.Reason == "" && e.Decision == audit.Allow:
				began[fmt.Sprint(e.Seq)] = true
			case e.Kind == audit.KindRelay && e.Reason == "stopped" && ended != len(began):
				t.Errorf("the relay's stop stands before the end of %d sessions", len(began)-ended)
			}
		}
		if len(began) != 7 || ended != len(began) {
			t.Errorf("%d sessions began, the end of %d is recorded", len(began), ended)
		}
	}
}

func TestControlCharactersOfHeadersStayInTheirRecord(t *testing.T) {
	s := newSystem(t, allowAll)
	session := s.user(nil).open(tunnel.Interactive)
	_, reply, err := openStream(within(t), session, tunnel.Header{Resource: "x\n{\"decision\":\"allow\"}\x1b[2J"})
	must(t, err)
	if reply.OK || strings.ContainsAny(reply.Message, "\n\x1b") {
		t.Errorf("%+v", reply)
	}
	s.awaitEvent("the denial", func(e audit.Event) bool {
		return e.Kind == audit.KindDecision && strings.Contains(e.Resource, "decision")
	})
}

func TestSecretsAreInNoRecord(t *testing.T) {
	m := newModelServer(t, func(w http.ResponseWriter, _ *http.Request) { completion(w, "answer-marker") })
	s := newSystem(t, allowAll)
	s.startAgent(served{"phi3", "model", m.URL})
	alice := s.user(nil)
	token := alice.token()
	session, err := alice.present(tunnel.Interactive, token)
	must(t, err)
	defer session.Close(tunnel.CodeNone, "")
	chatOK(t, client(t, session, tunnel.Header{Resource: "phi3"}), strings.Replace(chatBody("phi3", false), "hello", "prompt-marker", 1))
	join := s.joinToken(true, served{"x", "http", ""})
	_, err = s.user(nil).present(tunnel.Interactive, token)
	if err == nil {
		t.Error("a stolen token was accepted")
	}
	signature := token[strings.LastIndexByte(token, '.')+1:]
	for _, e := range s.events(func(audit.Event) bool { return true }) {
		line := fmt.Sprintf("%+v", e)
		for _, secret := range []string{token, signature, join.Token, "prompt-marker", "answer-marker", "alice@example.test"} {
			if strings.Contains(line, secret) {
				t.Errorf("a secret stands in %.300s", line)
			}
		}
	}
}
