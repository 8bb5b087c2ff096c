package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"iap/internal/audit"
	"iap/internal/relay/settings"
	"iap/tunnel"
)

// bobOnly takes everything from alice and leaves it to bob.
const bobOnly = `version: 1
grants:
  - name: bob
    to: ["user:corp/bob"]
    resources: ["*"]
    actions: [connect, chat, list-models]
`

const aliceAndBob = `version: 1
grants:
  - name: both
    to: ["user:corp/alice", "user:corp/bob"]
    resources: ["*"]
    actions: [connect, chat, list-models]
`

// echo is a tcp upstream that returns what it gets.
func echo(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { _, _ = io.Copy(conn, conn); conn.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().String()
}

func ping(t testing.TB, st *tunnel.Stream) {
	t.Helper()
	_, err := io.WriteString(st, "ping")
	must(t, err)
	var b [4]byte
	_, err = io.ReadFull(st, b[:])
	must(t, err)
}

// running has alice and bob in the middle of an answer of the model, of a page and of a tcp stream each.
type running struct {
	s          *system
	alice, bob answers
	model, web *slowChat
}

type answers struct {
	session *tunnel.Session
	model   *http.Response
	web     *http.Response
	tcp     *tunnel.Stream
}

func startRunning(t *testing.T, changes ...change) *running {
	t.Helper()
	r := &running{model: newSlowChat(), web: newSlowChat()}
	m := newModelServer(t, r.model.serve)
	page := newModelServer(t, r.web.serve)
	page.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("X-Request-Id") == "" {
			http.NotFound(w, q)
			return
		}
		r.web.serve(w, q)
	})
	r.s = newSystem(t, aliceAndBob, changes...)
	r.s.startAgent(served{"phi3", "model", m.URL}, served{"web", "http", page.URL}, served{"db", "tcp", echo(t)})
	r.alice = r.begin(t, r.s.user(nil))
	r.bob = r.begin(t, r.s.user(map[string]any{"sub": "bob"}))
	return r
}

func (r *running) begin(t *testing.T, u *user) answers {
	t.Helper()
	a := answers{session: u.open(tunnel.Interactive)}
	var err error
	a.model, err = postChat(client(t, a.session, tunnel.Header{Resource: "phi3"}), chatBody("phi3", true))
	must(t, err)
	a.web, err = client(t, a.session, tunnel.Header{Resource: "web"}).Get("http://web/")
	must(t, err)
	t.Cleanup(func() { a.model.Body.Close(); a.web.Body.Close() })
	if a.model.StatusCode != 200 || a.web.StatusCode != 200 {
		t.Fatalf("model %s, web %s", a.model.Status, a.web.Status)
	}
	a.tcp = mustOpen(t, a.session, "db")
	ping(t, a.tcp)
	return a
}

// cut checks that everything of a has ended, saying why.
func (a *answers) cut(t *testing.T, code tunnel.Code) {
	t.Helper()
	text, err := io.ReadAll(a.model.Body)
	if err == nil || !strings.Contains(string(text), `"code":"`+code.String()+`"`) {
		t.Errorf("the model's answer ended with %v and %q, want an error event %s", err, text, code)
	}
	if _, err := io.ReadAll(a.web.Body); err == nil {
		t.Error("the page looked finished")
	}
	_, err = io.ReadAll(a.tcp)
	if got := tunnel.CodeOf(err); got != code {
		t.Errorf("the tcp stream ended with %v, want %s", err, code)
	}
}

// whole checks that everything of a goes on to its good end.
func (r *running) whole(t *testing.T, a answers) {
	t.Helper()
	ping(t, a.tcp)
	close(r.model.release)
	close(r.web.release)
	for _, body := range []io.Reader{a.model.Body, a.web.Body} {
		text, err := io.ReadAll(body)
		if err != nil || !strings.HasSuffix(string(text), "[DONE]\n\n") {
			t.Errorf("a spared answer ended with %q, %v", text, err)
		}
	}
}

func TestPolicyChangeEndsWhatIsNoLongerAllowedAndSparesTheRest(t *testing.T) {
	r := startRunning(t)
	r.s.setPolicy(bobOnly)
	r.alice.cut(t, tunnel.CodePolicyChanged)
	r.whole(t, r.bob)
	for _, resource := range []string{"phi3", "web", "db"} {
		r.s.awaitEvent("outcome policy_changed on "+resource, func(e audit.Event) bool {
			return e.Kind == audit.KindOutcome && e.Principal == "corp/alice" && e.Resource == resource && e.Ended == "policy_changed"
		})
	}
	if _, reply, err := openStream(within(t), r.alice.session, tunnel.Header{Resource: "db"}); err != nil || reply.OK || reply.Code != "policy_denied" {
		t.Errorf("alice may still open streams: %+v, %v", reply, err)
	}
}

func TestKillEndsRunningAnswersWithTheReasonInTheirProtocol(t *testing.T) {
	r := startRunning(t)
	must(t, errorOf(r.s.admin.KillSession(within(t), r.alice.session.ID(), "")))
	r.alice.cut(t, tunnel.CodeRevoked)
	await(t, r.alice.session.Done(), "alice's session ends")
	if got := tunnel.CodeOf(r.alice.session.Err()); got != tunnel.CodeRevoked {
		t.Errorf("the session ended with %v", r.alice.session.Err())
	}
	r.whole(t, r.bob)
	if kills := r.s.events(func(e audit.Event) bool { return e.Kind == audit.KindAdmin && e.Action == "iap:sessions.kill" }); len(kills) != 1 {
		t.Errorf("%d records of the kill", len(kills))
	}
}

func TestST13ExpiryEndsRunningAnswersWithTheReasonInTheirProtocol(t *testing.T) {
	r := startRunning(t, func(c *settings.Config) { setMaxAge(c, 3*time.Second) })
	r.alice.cut(t, tunnel.CodeSessionExpired)
	r.s.awaitEvent("outcome session_expired", func(e audit.Event) bool {
		return e.Kind == audit.KindOutcome && e.Principal == "corp/alice" && e.Resource == "phi3" && e.Ended == "session_expired"
	})
}

func TestBrokenPolicyKeepsTheOldAndSaysWhy(t *testing.T) {
	s := newSystem(t, aliceAndBob)
	s.startAgent(served{"db", "tcp", echo(t)})
	session := s.user(nil).open(tunnel.Bulk)
	st := mustOpen(t, session, "db")
	revision := s.relay.policy.Revision()
	for _, broken := range []string{"version: 1\ngrants:\n  - nmae: x\n", "", "version: 1\ngrants: [\n"} {
		writeFile(t, s.grants, broken)
		if _, err := s.admin.ReloadPolicy(within(t)); err == nil {
			t.Errorf("%q was loaded", broken)
		}
	}
	ping(t, st)
	st.Abort(tunnel.CodeCanceled)
	mustOpen(t, session, "db").Abort(tunnel.CodeCanceled)
	if got := s.relay.policy.Revision(); got != revision {
		t.Errorf("revision %s became %s", revision, got)
	}
	s.awaitEvent("the broken policy", func(e audit.Event) bool { return e.Kind == audit.KindPolicy && e.Reason == "broken" && e.Message != "" })
}

func TestPolicyFileIsWatched(t *testing.T) {
	r := startRunning(t)
	writeFile(t, r.s.grants, bobOnly)
	r.alice.cut(t, tunnel.CodePolicyChanged)
	r.whole(t, r.bob)
}

// TestPolicyChangeCatchesStreamsThatAreJustBeingOpened has the agent answer only after the new policy is in force: the
// stream was decided by the old one and must not outlive it.
func TestPolicyChangeCatchesStreamsThatAreJustBeingOpened(t *testing.T) {
	s := newSystem(t, aliceAndBob)
	fake := s.enrolFake(false, served{"db", "tcp", ""})
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	fake.serve(tunnel.Bulk, func(ctx context.Context, st *tunnel.Stream, _ tunnel.Header) {
		asked <- struct{}{}
		<-answer
		_ = st.WriteReply(tunnel.Reply{OK: true}, nil)
		_, _ = io.Copy(st, st)
	}, tunnel.Announcement{Resource: "db", Kind: "tcp", Healthy: true})
	st, err := s.user(nil).open(tunnel.Bulk).Open(within(t), tunnel.Header{Resource: "db"}, nil)
	must(t, err)
	await(t, asked, "the agent is asked")
	s.setPolicy(bobOnly)
	close(answer)
	reply, err := st.ReadReply(within(t))
	if err == nil && reply.OK {
		stop := context.AfterFunc(within(t), func() { st.Abort(tunnel.CodeTimeout) })
		defer stop()
		_, err = io.ReadAll(st)
		if got := tunnel.CodeOf(err); got != tunnel.CodePolicyChanged {
			t.Errorf("a stream of the old policy goes on under the new one: %v", err)
		}
	}
	st.Abort(tunnel.CodeCanceled)
}

func TestRefreshedTokenWithoutTheGroupEndsWhatTheGroupAllowed(t *testing.T) {
	s := newSystem(t, allowAll)
	s.startAgent(served{"db", "tcp", echo(t)})
	u := s.user(nil)
	session := u.open(tunnel.Bulk)
	st := mustOpen(t, session, "db")
	ping(t, st)
	u.claims = map[string]any{"groups": []string{"guests"}}
	_, err := session.Refresh(within(t), u.token())
	must(t, err)
	stop := context.AfterFunc(within(t), func() { st.Abort(tunnel.CodeTimeout) })
	defer stop()
	_, err = io.ReadAll(st)
	var abort *tunnel.AbortError
	if !errors.As(err, &abort) || abort.Code != tunnel.CodePolicyChanged {
		t.Errorf("the stream ended with %v", err)
	}
	if _, reply, err := openStream(within(t), session, tunnel.Header{Resource: "db"}); err != nil || reply.OK {
		t.Errorf("%+v, %v", reply, err)
	}
}

func TestRevokedPrincipalIsCutAndStaysOutUntilRestored(t *testing.T) {
	r := startRunning(t)
	must(t, errorOf(r.s.admin.RevokePrincipal(within(t), "corp/alice", "")))
	r.alice.cut(t, tunnel.CodeRevoked)
	await(t, r.alice.session.Done(), "alice's session ends")
	r.whole(t, r.bob)
	// A new login, with a new key and a new token, changes nothing.
	refused := func(when string) {
		t.Helper()
		_, err := r.s.user(nil).present(tunnel.Interactive, r.s.user(nil).token())
		if tunnel.CodeOf(err) != tunnel.CodeRevoked {
			t.Errorf("%s: got %v", when, err)
		}
		if answer, body := r.s.ask("/r/phi3/v1/models", r.s.bearer(nil)); answer.StatusCode != http.StatusUnauthorized || !strings.Contains(body, "revoked") {
			t.Errorf("%s, at the front door: %d %s", when, answer.StatusCode, body)
		}
	}
	refused("after the revocation")
	must(t, r.s.end())
	r.s.start()
	refused("after a restart")
	must(t, r.s.admin.RestorePrincipal(within(t), "corp/alice", ""))
	r.s.user(nil).open(tunnel.Interactive)
	for _, id := range []string{"alice", "nobody/alice", "corp/"} {
		if err := errorOf(r.s.admin.RevokePrincipal(within(t), id, "")); err == nil {
			t.Errorf("%q was revoked", id)
		}
	}
	if err := r.s.admin.RestorePrincipal(within(t), "corp/bob", ""); err == nil {
		t.Error("who was not revoked was restored")
	}
}
