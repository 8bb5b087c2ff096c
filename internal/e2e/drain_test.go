package e2e

import (
	"strings"
	"syscall"
	"testing"
)

const shortAnswer = 40 // tokens: long enough to be running when its relay is told to stop

func TestStoppingRelayLetsRunningAnswersFinish(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, _ := startDemo(t, 40)
	s.startAgent(map[string]string{"phi3=model": up.url})
	web := newCaller(t, s.loggedIn("alice").connect("phi3").url())
	running := web.mustStream("/v1/chat/completions", chatBody("demo", "finish me", true, shortAnswer))
	signal(t, s.relay, "draining")
	if end := running.rest(); !end.done || end.err != nil {
		t.Errorf("the running answer ended with %+v", end)
	}
	if code := s.relay.wait(); code != 0 {
		t.Errorf("a drained relay ends with %d", code)
	}
	for _, h := range histories(s.records()) {
		if isRequest(h.decision) && (len(h.outcomes) != 1 || h.outcomes[0].Ended != "completed") {
			t.Errorf("outcomes %+v", h.outcomes)
		}
	}
}

func TestSecondSignalEndsTheRelayAndSaysSoInRunningAnswers(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, model := startDemo(t, 20)
	s.startAgent(map[string]string{"phi3=model": up.url})
	web := newCaller(t, s.loggedIn("alice").connect("phi3").url())
	running := web.mustStream("/v1/chat/completions", chatBody("demo", "cut me", true, endless))
	signal(t, s.relay, "draining")
	if err := s.relay.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if end := running.rest(); end.done || end.code != "relay_shutdown" {
		t.Errorf("the running answer ended with %+v", end)
	}
	if code := s.relay.wait(); code != 0 {
		t.Errorf("a relay that was told twice ends with %d", code)
	}
	eventually(t, "the model has stopped", func() bool { return model.Active() == 0 })
	if open := openDecisions(s.records()); len(open) > 0 {
		t.Errorf("a relay that ended in order left open decisions: %v", open)
	}
}

func TestStoppingAgentLetsRunningAnswersFinish(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, _ := startDemo(t, 40)
	a := s.startAgent(map[string]string{"phi3=model": up.url})
	web := newCaller(t, s.loggedIn("alice").connect("phi3").url())
	running := web.mustStream("/v1/chat/completions", chatBody("demo", "finish me", true, shortAnswer))
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if end := running.rest(); !end.done || end.err != nil {
		t.Errorf("the running answer ended with %+v", end)
	}
	if code := a.wait(); code != 0 {
		t.Errorf("a drained agent ends with %d", code)
	}
}

// signal asks a program to stop and waits until it says that it does.
func signal(t *testing.T, p *process, said string) {
	t.Helper()
	mark := p.err.mark()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if text := p.awaitText(mark, said, 1); strings.Contains(text, "ERROR") {
		t.Errorf("%s says: %s", p.name, text)
	}
}
