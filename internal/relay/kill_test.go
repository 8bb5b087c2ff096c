package relay

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"iap/internal/audit"
	"iap/tunnel"
)

const (
	manyStreams = 1000 // ended at once; a quarter of them under the race detector, which needs ten times the memory
	killRedials = 200  // tries to come back after a kill or a revocation

	// redialsFor names how long to try to come back instead, as in "60s" (make test-kill).
	redialsFor = "IAP_REDIALS"
)

// TestKillEndsEveryLiveStreamWithTheReason kills a login under which many answers run, and prints how long each took to
// end, as its reader saw it. It asserts that each ends with the reason, not when.
func TestKillEndsEveryLiveStreamWithTheReason(t *testing.T) {
	chat := newSlowChat()
	m := newModelServer(t, chat.serve)
	s := newSystem(t, aliceAndBob)
	s.startAgent(served{"phi3", "model", m.URL})
	alice, bob := s.user(nil), s.user(map[string]any{"sub": "bob"})
	session, spared := alice.open(tunnel.Interactive), bob.open(tunnel.Interactive)
	bobs := client(t, spared, tunnel.Header{Resource: "phi3"})
	bobs.Timeout = 0 // his answer runs for as long as somebody tries to come back
	other, err := postChat(bobs, chatBody("phi3", true))
	must(t, err)
	defer other.Body.Close()
	streams := manyStreams
	if raceDetector {
		streams /= 4
	}
	running := startChats(t, session, streams)
	for range streams + 1 {
		await(t, chat.begun, "an answer begins")
	}
	took := make([]time.Duration, len(running))
	var reading sync.WaitGroup
	var start atomic.Int64
	for i, body := range running {
		reading.Go(func() {
			text, err := io.ReadAll(body)
			took[i] = time.Duration(time.Now().UnixNano() - start.Load())
			if err == nil || !strings.Contains(string(text), `"code":"revoked"`) {
				t.Errorf("stream %d ended with %v and %q", i, err, text)
			}
		})
	}
	start.Store(time.Now().UnixNano())
	must(t, errorOf(s.admin.KillSession(within(t), session.ID(), "")))
	reading.Wait()
	t.Logf("%d streams ended after the kill:\n%s", len(took), histogram(took))
	await(t, session.Done(), "the session ends")

	admitNone(t, "the killed login", func() (*tunnel.Session, error) { return alice.present(tunnel.Interactive, alice.token()) })
	close(chat.release)
	if text, err := io.ReadAll(other.Body); err != nil || !strings.HasSuffix(string(text), "[DONE]\n\n") {
		t.Errorf("bob's answer ended with %q, %v", text, err)
	}
	ended := s.events(func(e audit.Event) bool {
		return e.Kind == audit.KindOutcome && e.Action == "chat" && e.Ended == "revoked"
	})
	if len(ended) != len(running) {
		t.Errorf("%d outcomes say revoked, of %d", len(ended), len(running))
	}
}

// startChats has n answers run at once on a session.
func startChats(t *testing.T, session *tunnel.Session, n int) []io.ReadCloser {
	t.Helper()
	c := client(t, session, tunnel.Header{Resource: "phi3"})
	c.Timeout = 0
	running := make([]io.ReadCloser, n)
	next := make(chan int)
	var opening sync.WaitGroup
	for range 16 {
		opening.Go(func() {
			for i := range next {
				answer, err := postChat(c, chatBody("phi3", true))
				if err != nil || answer.StatusCode != http.StatusOK {
					t.Errorf("stream %d: %v, %v", i, answer, err)
					running[i] = io.NopCloser(strings.NewReader(""))
					continue
				}
				running[i] = answer.Body
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	opening.Wait()
	t.Cleanup(func() {
		for _, body := range running {
			body.Close()
		}
	})
	return running
}

// histogram shows how many took how long, in steps that double.
func histogram(all []time.Duration) string {
	slices.Sort(all)
	var out strings.Builder
	for step, i := time.Millisecond, 0; i < len(all); step *= 2 {
		n := 0
		for i < len(all) && all[i] < step {
			n, i = n+1, i+1
		}
		if n > 0 {
			fmt.Fprintf(&out, "  below %8s %6d %s\n", step, n, strings.Repeat("#", (n*60+len(all)-1)/len(all)))
		}
	}
	at := func(percent int) time.Duration {
		return all[min(len(all)*percent/100, len(all)-1)].Round(100 * time.Microsecond)
	}
	fmt.Fprintf(&out, "  p50 %s  p99 %s  last %s", at(50), at(99), at(100))
	return out.String()
}

// admitNone tries to come back again and again: nobody may be let in.
func admitNone(t *testing.T, who string, try func() (*tunnel.Session, error)) {
	t.Helper()
	ctx, cancel := redialTime(t)
	defer cancel()
	more := func(n int64) bool { return n <= killRedials }
	if ctx.Done() != nil {
		more = func(int64) bool { return ctx.Err() == nil }
	}
	var tries, refused atomic.Int64
	var redialing sync.WaitGroup
	for range 8 {
		redialing.Go(func() {
			for more(tries.Add(1)) {
				if _, err := try(); tunnel.CodeOf(err) != tunnel.CodeRevoked {
					t.Errorf("%s came back: %v", who, err)
					return
				}
				refused.Add(1)
			}
		})
	}
	redialing.Wait()
	t.Logf("%s was refused %d times", who, refused.Load())
}

// redialTime ends after the time that the environment names; without one it has no end.
func redialTime(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	text := os.Getenv(redialsFor)
	if text == "" {
		return context.Background(), func() {}
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("%s: %v", redialsFor, err)
	}
	return context.WithTimeout(context.Background(), d)
}

func TestRevokedPrincipalsRedialsAdmitNone(t *testing.T) {
	s := newSystem(t, aliceAndBob)
	must(t, errorOf(s.admin.RevokePrincipal(within(t), "corp/alice", "")))
	admitNone(t, "the revoked principal", func() (*tunnel.Session, error) {
		u := s.user(nil) // a new key and a new token each time
		return u.present(tunnel.Interactive, u.token())
	})
	for range 20 {
		if r, body := s.ask("/r/phi3/v1/models", s.bearer(nil)); r.StatusCode != http.StatusUnauthorized || !strings.Contains(body, "revoked") {
			t.Fatalf("the front door let the revoked principal in: %s %s", r.Status, body)
		}
	}
}

func TestAG09RevokedAgentIsCutInTheMiddleOfAnswersAndItsRedialsAdmitNone(t *testing.T) {
	s := newSystem(t, allowAll)
	fake := s.enrolFake(false, served{"db", "tcp", ""})
	session := fake.serve(tunnel.Bulk, func(_ context.Context, st *tunnel.Stream, _ tunnel.Header) {
		_ = st.WriteReply(tunnel.Reply{OK: true}, nil)
		_, _ = io.Copy(st, st)
	}, tunnel.Announcement{Resource: "db", Kind: "tcp", Healthy: true})
	st := mustOpen(t, s.user(nil).open(tunnel.Bulk), "db")
	ping(t, st)
	must(t, errorOf(s.admin.RevokeAgent(within(t), fake.id)))
	await(t, session.Done(), "the agent's session ends")
	if _, err := io.ReadAll(st); err == nil {
		t.Error("what ran through the agent looked finished")
	}
	if got := tunnel.CodeOf(session.Err()); got != tunnel.CodeRevoked {
		t.Errorf("the agent's session ended with %v", session.Err())
	}
	admitNone(t, "the revoked agent", func() (*tunnel.Session, error) { return fake.connect(tunnel.Bulk) })
}
