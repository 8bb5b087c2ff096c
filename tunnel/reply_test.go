package tunnel

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"testing"
)

// What the agent vouches for must not be read of another request, another reply or without a seal: the relay would send
// a request twice.
func TestNotSentHoldsForItsOwnRequestAlone(t *testing.T) {
	key := bytes.Repeat([]byte("k"), 32)
	relay, agent := newSeal(key, roleRelay, RoleAgent), newSeal(key, RoleAgent, roleRelay)
	r := Reply{Code: "queue_full", Message: "full", RetryAfterMS: 5, NotSent: true}
	agent.signReply(&r, 3, 7)
	if !relay.verifyReply(&r, 3, 7) {
		t.Fatal("the agent's own word does not hold")
	}
	for name, c := range map[string]struct {
		by     *seal
		stream uint32
		seq    uint64
		change func(*Reply)
	}{
		"another stream":   {relay, 5, 7, func(*Reply) {}},
		"another request":  {relay, 3, 8, func(*Reply) {}},
		"back to an agent": {agent, 3, 7, func(*Reply) {}},
		"another key":      {newSeal(make([]byte, 32), roleRelay, RoleAgent), 3, 7, func(*Reply) {}},
		"no seal":          {relay, 3, 7, func(r *Reply) { r.MAC = nil }},
		"another code":     {relay, 3, 7, func(r *Reply) { r.Code = "upstream_reset" }},
	} {
		changed := r
		c.change(&changed)
		if c.by.verifyReply(&changed, c.stream, c.seq) {
			t.Errorf("%s: holds", name)
		}
	}
	full := reflect.ValueOf(Reply{OK: true, Code: "x", Message: "x", RetryAfterMS: 9, NotSent: false})
	for i := range full.NumField() {
		if name := full.Type().Field(i).Name; name != "MAC" {
			changed := r
			reflect.ValueOf(&changed).Elem().Field(i).Set(full.Field(i))
			if relay.verifyReply(&changed, 3, 7) {
				t.Errorf("%s is not under the seal", name)
			}
		}
	}
}

func TestNotSentReachesTheRelayOnEachRequestOfAWarmStream(t *testing.T) {
	agent, relay := agentPair(t)
	serve(t, agent, func(ctx context.Context, st *Stream, h Header) {
		for err := error(nil); err == nil; h, err = st.ReadHeader(ctx) {
			if st.WriteReply(Reply{Code: "queue_full", NotSent: h.Action == "refused"}, nil) != nil {
				return
			}
		}
		st.Close()
	})
	ctx := t.Context()
	st, err := relay.Open(ctx, Header{Action: "refused"}, nil)
	must(t, err)
	for i, action := range []string{"refused", "sent", "refused"} {
		if i > 0 {
			must(t, st.WriteHeader(Header{Action: action}, nil))
		}
		reply, err := st.ReadReply(ctx)
		must(t, err)
		if reply.NotSent != (action == "refused") || reply.MAC != nil {
			t.Errorf("%s: %+v", action, reply)
		}
	}
}

// A user's session has no seal: nothing that the relay says there is such a promise.
func TestNotSentIsNothingWithoutASeal(t *testing.T) {
	client, relay := pair(t)
	serve(t, relay, func(_ context.Context, st *Stream, _ Header) {
		_ = st.WriteReply(Reply{Code: "queue_full", NotSent: true}, nil)
		st.Close()
	})
	st, err := client.Open(t.Context(), Header{}, nil)
	must(t, err)
	if reply, err := st.ReadReply(t.Context()); err != nil || reply.NotSent {
		t.Errorf("%+v, %v", reply, err)
	}
}

func TestOpenOnASessionThatIsOverSendsNothing(t *testing.T) {
	agent, relay := agentPair(t)
	st, err := relay.Open(t.Context(), Header{}, nil)
	must(t, err)
	must(t, agent.GoAway("stopping"))
	<-relay.leave
	if _, err := relay.Open(t.Context(), Header{}, nil); !errors.Is(err, ErrNotSent) {
		t.Errorf("behind a goaway: %v", err)
	}
	must(t, agent.Close(CodeCanceled, "over"))
	<-relay.Done()
	if _, err := relay.Open(t.Context(), Header{}, nil); !errors.Is(err, ErrNotSent) || !errors.Is(err, ErrSessionLost) && CodeOf(err) == CodeNone {
		t.Errorf("on a session that is over: %v", err)
	}
	if err := st.WriteHeader(Header{}, nil); !errors.Is(err, ErrNotSent) {
		t.Errorf("on a warm stream of it: %v", err)
	}
}

func TestReportedLoadReachesTheRelay(t *testing.T) {
	heard := make(chan []Load, 1)
	r := startRelay(t, func(c *ServerConfig) { c.OnLoad = func(_ *Session, list []Load) { heard <- list } })
	agent, relay := r.connect(t, r.clientConfig(t, RoleAgent))
	want := []Load{{Resource: "phi3", Running: 2, Queued: 5}}
	must(t, agent.ReportLoad(want))
	if got := wait(t, heard, "the report"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if err := relay.ReportLoad(want); err == nil {
		t.Error("a relay reported load")
	}
}
