package relay

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"iap/internal/audit"
	"iap/internal/config"
	"iap/internal/relay/settings"
	"iap/tunnel"
)

func TestDrainLetsAnswersEndAndTakesNoNewOnes(t *testing.T) {
	r := startRunning(t, func(c *settings.Config) { c.Drain = config.Duration(time.Minute) })
	r.bob.tcp.Abort(tunnel.CodeCanceled)
	r.alice.tcp.Abort(tunnel.CodeCanceled)
	r.s.stop()
	eventually(t, "the sessions hear of it", func() bool { return r.alice.session.Draining() && r.bob.session.Draining() })
	if _, _, err := openStream(within(t), r.alice.session, tunnel.Header{Resource: "phi3"}); tunnel.CodeOf(err) != tunnel.CodeRelayShutdown {
		t.Errorf("a new stream: %v", err)
	}
	late := r.s.user(nil)
	if session, err := late.present(tunnel.Interactive, late.token()); err == nil {
		_ = session.Close(tunnel.CodeNone, "")
		t.Error("a new session was let in")
	}
	close(r.model.release)
	close(r.web.release)
	for _, body := range []io.Reader{r.alice.model.Body, r.bob.model.Body, r.alice.web.Body, r.bob.web.Body} {
		text, err := io.ReadAll(body)
		if err != nil || !strings.HasSuffix(string(text), "[DONE]\n\n") {
			t.Errorf("a running answer was cut by the drain: %q, %v", text, err)
		}
	}
	if err := await(t, r.s.done, "the relay ends"); err != nil {
		t.Error(err)
	}
	r.s.stopped.Do(func() {})
	r.s.admin.Close()
	await(t, r.alice.session.Done(), "the session ends")
	if got := tunnel.CodeOf(r.alice.session.Err()); got != tunnel.CodeRelayShutdown {
		t.Errorf("session ended with %v", r.alice.session.Err())
	}
	for _, e := range r.s.events(func(e audit.Event) bool { return e.Kind == audit.KindOutcome && e.Action == "chat" }) {
		if e.Ended != "completed" {
			t.Errorf("outcome %+v", e)
		}
	}
}

func TestSecondSignalEndsTheDrain(t *testing.T) {
	r := startRunning(t)
	r.s.stop()
	eventually(t, "the drain begins", func() bool { return r.alice.session.Draining() })
	must(t, r.s.end()) // closes force
	r.alice.cut(t, tunnel.CodeRelayShutdown)
	await(t, r.model.ended, "the model is freed")
	r.s.awaitEvent("the relay's stop", func(e audit.Event) bool { return e.Kind == audit.KindRelay && e.Reason == "stopped" })
}

func TestDrainHasALimit(t *testing.T) {
	r := startRunning(t, func(c *settings.Config) { c.Drain = config.Duration(time.Second) })
	r.s.stop()
	if err := await(t, r.s.done, "the relay ends although answers run"); err != nil {
		t.Error(err)
	}
	r.s.stopped.Do(func() {})
	r.s.admin.Close()
	r.alice.cut(t, tunnel.CodeRelayShutdown)
}

// TestDrainWaitsForACallerThatReadsSlowly has the whole answer at the relay and not yet at its caller.
func TestDrainWaitsForACallerThatReadsSlowly(t *testing.T) {
	const size = 8 << 20
	s, _ := newWeb(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		_, _ = io.WriteString(w, strings.Repeat("x", size))
	})
	st := mustOpen(t, s.user(nil).open(tunnel.Interactive), "web")
	_, err := io.WriteString(st, "GET / HTTP/1.1\r\nHost: web\r\n\r\n")
	must(t, err)
	var head [1]byte
	_, err = io.ReadFull(st, head[:])
	must(t, err)
	s.stop()
	eventually(t, "the drain begins", func() bool { return st.Session().Draining() })
	n, err := io.CopyN(io.Discard, st, size)
	if err != nil {
		t.Errorf("after %d bytes: %v", n, err)
	}
	st.Abort(tunnel.CodeCanceled)
}

func TestRelayComesBackWithItsAgentsAndItsKey(t *testing.T) {
	m := newModelServer(t, func(w http.ResponseWriter, _ *http.Request) { completion(w, "back") })
	s := newSystem(t, allowAll)
	a := s.startAgent(served{"phi3", "model", m.URL})
	key := s.relay.ring.Current()
	must(t, s.end())
	s.start()
	if !key.Equal(s.relay.ring.Current()) {
		t.Error("the relay has another key")
	}
	s.awaitOnline(a.id, 2)
	c := client(t, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	chatOK(t, c, chatBody("phi3", false))
}
