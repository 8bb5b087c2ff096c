package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"iap/internal/audit"
	"iap/internal/relay/settings"
	"iap/internal/state"
	"iap/tunnel"
)

func TestSessionsOfAnAgentOverItsCapLeaveNothingBehind(t *testing.T) {
	m := newModelServer(t, func(w http.ResponseWriter, _ *http.Request) { completion(w, "hi") })
	s := newSystem(t, allowAll, func(c *settings.Config) { c.Sessions.SessionsPerPrincipal = 3 })
	s.startAgent(served{"phi3", "model", m.URL})
	fake := s.enrolFake(true, served{"phi3", "model", ""})
	announce := tunnel.Announcement{Resource: "phi3", Kind: "model", Server: "openai", Models: modelNames, Healthy: true}
	var open []*tunnel.Session
	for range 12 {
		if session, err := fake.connect(tunnel.Interactive, announce); err == nil {
			open = append(open, session)
		}
	}
	for _, session := range open {
		_ = session.Close(tunnel.CodeNone, "")
		<-session.Done()
	}
	eventually(t, "nothing of the agent is left", func() bool { return len(s.links(fake.id)) == 0 })
	c := client(t, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	for range 20 {
		chatOK(t, c, chatBody("phi3", false))
	}
}

func TestAnnouncementOfADyingSessionIsForgotten(t *testing.T) {
	s := newSystem(t, allowAll)
	fake := s.enrolFake(true, served{"phi3", "model", ""})
	list := []tunnel.Announcement{{Resource: "phi3", Kind: "model", Server: "openai", Healthy: true}}
	for range 60 {
		session, err := fake.connect(tunnel.Interactive, list...)
		must(t, err)
		var announcing sync.WaitGroup
		for range 3 {
			announcing.Go(func() { _ = session.Announce(context.Background(), list) }) // fails with the session
		}
		_ = session.Close(tunnel.CodeNone, "")
		announcing.Wait()
	}
	eventually(t, "no link of a dead session is left", func() bool { return len(s.links(fake.id)) == 0 })
	if n, _ := s.relay.agents.online("phi3"); n != 0 {
		t.Errorf("%d agents are online", n)
	}
}

// hangingStore is a database that does not answer while held.
type hangingStore struct {
	state.Store
	mu   sync.Mutex
	held chan struct{} // nil: it answers
}

func (h *hangingStore) hold() (release func()) {
	held := make(chan struct{})
	h.mu.Lock()
	h.held = held
	h.mu.Unlock()
	return sync.OnceFunc(func() {
		h.mu.Lock()
		h.held = nil
		h.mu.Unlock()
		close(held)
	})
}

func (h *hangingStore) wait(ctx context.Context) {
	h.mu.Lock()
	held := h.held
	h.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
		}
	}
}

func (h *hangingStore) Get(ctx context.Context, key string) (state.Item, error) {
	h.wait(ctx)
	return h.Store.Get(ctx, key)
}

func (h *hangingStore) Swap(ctx context.Context, key string, version int64, value []byte, expires time.Time) (int64, error) {
	h.wait(ctx)
	return h.Store.Swap(ctx, key, version, value, expires)
}

// TestRightsAreTakenAwayBeforeTheDatabaseAnswers has a database that hangs until the session and the agent are gone.
func TestRightsAreTakenAwayBeforeTheDatabaseAnswers(t *testing.T) {
	s := prepareSystem(t, allowAll)
	var store *hangingStore
	s.adjust = func(r *Relay) { store = &hangingStore{Store: r.store}; r.store = store }
	s.start()
	fake := s.enrolFake(false, served{"web", "http", ""})
	agent := fake.serve(tunnel.Bulk, func(context.Context, *tunnel.Stream, tunnel.Header) {}, tunnel.Announcement{Resource: "web", Kind: "http"})
	session := s.user(nil).open(tunnel.Interactive)
	_, err := api(t, session).Whoami(within(t))
	must(t, err)
	release := store.hold()
	defer release()
	var acting sync.WaitGroup
	acting.Go(func() { _ = errorOf(s.admin.KillSession(context.Background(), session.ID(), "")) })
	acting.Go(func() { _ = errorOf(s.admin.RevokeAgent(context.Background(), fake.id)) })
	await(t, session.Done(), "the session ends")
	await(t, agent.Done(), "the agent is cut")
	release()
	acting.Wait()
}

func TestRequestToAnUngrantedResourceIsRefusedWithoutItsBody(t *testing.T) {
	s, _ := newDoor(t, phi3Only)
	for _, name := range []string{"absent", "secret"} {
		conn, err := tls.Dial("tcp", s.name, s.tls())
		must(t, err)
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(patience)))
		// The body never comes: whoever may not use the resource gets no memory for it.
		fmt.Fprintf(conn, "POST /r/%s/v1/chat/completions HTTP/1.1\r\nHost: %s\r\n%s\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{", name, s.name, s.bearer(nil))
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: no answer before the body: %v", name, err)
			continue
		}
		if r.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", name, r.Status)
		}
	}
}

// TestPromptThatTheAgentDoesNotReadEndsWithItsCaller sends more than a stream's window to an agent that hangs.
func TestPromptThatTheAgentDoesNotReadEndsWithItsCaller(t *testing.T) {
	for _, end := range []string{"caller", "kill"} {
		t.Run(end, func(t *testing.T) {
			s := newSystem(t, allowAll)
			fake := s.enrolFake(false, served{"phi3", "model", ""})
			asked := make(chan struct{}, 1)
			fake.serve(tunnel.Bulk, func(ctx context.Context, _ *tunnel.Stream, _ tunnel.Header) {
				asked <- struct{}{}
				<-ctx.Done()
			}, tunnel.Announcement{Resource: "phi3", Kind: "model", Server: "openai", Models: modelNames, Healthy: true})
			session := s.user(nil).open(tunnel.Interactive)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			body := strings.Replace(chatBody("phi3", false), "hello", strings.Repeat("x", 12<<20), 1)
			r, err := http.NewRequestWithContext(ctx, "POST", "http://phi3/v1/chat/completions", strings.NewReader(body))
			must(t, err)
			r.Header.Set("Content-Type", "application/json")
			var calling sync.WaitGroup
			calling.Go(func() {
				if got, err := client(t, session, tunnel.Header{Resource: "phi3"}).Do(r); err == nil {
					_, _ = io.Copy(io.Discard, got.Body)
					got.Body.Close()
				}
			})
			await(t, asked, "the agent is asked")
			if end == "kill" {
				must(t, errorOf(s.admin.KillSession(within(t), session.ID(), "")))
			} else {
				cancel()
			}
			s.awaitEvent("the outcome", func(e audit.Event) bool { return e.Kind == audit.KindOutcome && e.Action == "chat" })
			eventually(t, "nothing runs", func() bool { return s.relay.inflight.models.Load() == 0 })
			cancel()
			calling.Wait()
		})
	}
}

func TestRefusedStreamIsCutHoweverMuchIsSentOnIt(t *testing.T) {
	s := newSystem(t, aliceAndBob)
	session := s.user(nil).open(tunnel.Bulk)
	st, reply, err := openStream(within(t), session, tunnel.Header{Resource: "nothing-here"})
	must(t, err)
	if reply.OK {
		t.Fatal("a resource that does not exist was opened")
	}
	block := make([]byte, 64<<10)
	for sent := 0; err == nil; sent += len(block) { // ends by the cut: nobody reads on, and nobody keeps it
		if sent > 64<<20 {
			t.Fatal("the relay takes whatever is sent on a refused stream")
		}
		_, err = st.Write(block)
	}
	if got := tunnel.CodeOf(err); got != tunnel.CodePolicyDenied {
		t.Errorf("the stream ended with %v", err)
	}
	eventually(t, "the stream is no longer counted", func() bool {
		s.relay.sessions.mu.Lock()
		defer s.relay.sessions.mu.Unlock()
		h := s.relay.sessions.principals["corp/alice"]
		return h != nil && h.streams == 0 && h.bulk == 0
	})
}
