package guard

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"iap/internal/modelapi"
)

// owners is the book of ids that a test keeps.
type owners struct {
	mu  sync.Mutex
	all map[modelapi.ID]Owner
	err error // of every call
}

func (o *owners) keep(f *fixture) {
	o.all = map[modelapi.ID]Owner{}
	f.resource.Server = "vllm"
	f.guard.Own = func(_ context.Context, owner Owner, id modelapi.ID) error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if there, ok := o.all[id]; ok && there.Caller.Principal != owner.Caller.Principal {
			return ErrNotOwner
		}
		if o.err == nil {
			o.all[id] = owner
		}
		return o.err
	}
	f.guard.Owned = func(_ context.Context, _ Resource, c *Caller, id modelapi.ID) (string, error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.err != nil {
			return "", o.err
		}
		if there, ok := o.all[id]; ok && there.Caller.Principal == c.Principal {
			return there.Agent, nil
		}
		return "", ErrNotOwner
	}
}

const createResponse = `{"model":"m","input":"hi"}`

func TestAnIDIsItsCallersBeforeTheCallerSeesIt(t *testing.T) {
	for _, stream := range []bool{false, true} {
		var o owners
		s := newScript()
		f := newFixture(t, o.keep, func(f *fixture) {
			f.guard.Forward = answering(200, `{"object":"response","id":"resp_7","output":[]}`)
			if stream {
				streaming(s, "text/event-stream")(f)
			}
		})
		body := createResponse
		if stream {
			body = `{"model":"m","input":"hi","stream":true}`
		}
		response := f.do(f.request("POST", "/v1/responses", body))
		if stream {
			s.pieces <- "event: response.created\n" + `data: {"type":"response.created","response":{"id":"re`
			s.pieces <- `sp_7"}}` + "\n\n"
			close(s.pieces)
		}
		text := readAll(t, response)
		o.mu.Lock()
		owner, ok := o.all[modelapi.ID{Kind: modelapi.IDResponse, Value: "resp_7"}]
		o.mu.Unlock()
		if !ok || owner.Agent != "gpu1" || owner.Resource != "phi3" || !strings.Contains(text, "resp_7") {
			t.Errorf("stream %t: %+v of %v; %s", stream, owner, o.all, text)
		}
		// Whoever has it may use it, at the agent that has it.
		if !stream {
			if r := f.do(f.request("GET", "/v1/responses/resp_7", "")); r.StatusCode != 200 {
				t.Errorf("its owner got %d %s", r.StatusCode, readAll(t, r))
			}
			if all := f.forwarded(); all[len(all)-1].Agent != "gpu1" {
				t.Errorf("sent to %q", all[len(all)-1].Agent)
			}
		}
	}
}

func TestAnIDOfAnotherCallerIsUnknown(t *testing.T) {
	var o owners
	f := newFixture(t, o.keep)
	o.all[modelapi.ID{Kind: modelapi.IDResponse, Value: "resp_7"}] = Owner{Agent: "gpu1", Caller: &Caller{Principal: "corp/bob"}}
	for name, r := range map[string][3]string{
		"read":         {"GET", "/v1/responses/resp_7", ""},
		"cancel":       {"POST", "/v1/responses/resp_7/cancel", ""},
		"continue":     {"POST", "/v1/responses", `{"model":"m","input":"hi","previous_response_id":"resp_7"}`},
		"never heard":  {"GET", "/v1/responses/resp_8", ""},
		"of no record": {"POST", "/v1/responses", `{"model":"m","input":"hi","previous_response_id":"resp_8"}`},
	} {
		response := f.do(f.request(r[0], r[1], r[2]))
		if body := readAll(t, response); response.StatusCode != 404 || !strings.Contains(body, "unknown_id") {
			t.Errorf("%s: got %d %s", name, response.StatusCode, body)
		}
	}
	if n := len(f.forwarded()); n != 0 {
		t.Errorf("%d were sent on", n)
	}
}

func TestAnIDWhoseOwnerCannotBeNotedIsNotHandedOut(t *testing.T) {
	for name, err := range map[string]error{"somebody else's": ErrNotOwner, "the store is away": errors.New("away")} {
		o := owners{err: err}
		f := newFixture(t, o.keep, func(f *fixture) {
			f.guard.Forward = answering(200, `{"object":"response","id":"resp_7","output":["secret"]}`)
		})
		var body []byte
		response, readErr := f.server.Client().Transport.RoundTrip(f.request("POST", "/v1/responses", createResponse))
		if readErr == nil {
			body, readErr = io.ReadAll(response.Body)
			_ = response.Body.Close()
		}
		if readErr == nil || strings.Contains(string(body), "resp_7") || strings.Contains(string(body), "secret") {
			t.Errorf("%s: read %q, %v", name, body, readErr)
		}
		if e := f.outcome(); e.Ended != "id_conflict" && e.Ended != "state_unavailable" {
			t.Errorf("%s: ended %s", name, e.Ended)
		}
	}
	o := owners{err: errors.New("away")}
	f := newFixture(t, o.keep)
	if r := f.do(f.request("GET", "/v1/responses/resp_7", "")); r.StatusCode != 503 {
		t.Errorf("without the store got %d", r.StatusCode)
	}
}
