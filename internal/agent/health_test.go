package agent

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"iap/internal/modelapi"
	"iap/tunnel"
)

func TestOneLostProbeDoesNotFlap(t *testing.T) {
	for name, one := range map[string]struct {
		findings []string
		want     string
		unsure   bool
	}{
		"nothing yet":             {nil, reasonUnreachable, false},
		"good at once":            {[]string{""}, "", false},
		"bad at once":             {[]string{reasonErrors}, reasonErrors, false},
		"one lost":                {[]string{"", reasonTimeout}, "", true},
		"lost and found":          {[]string{"", reasonTimeout, "", reasonTimeout}, "", true},
		"two lost":                {[]string{"", reasonTimeout, reasonErrors}, reasonErrors, false},
		"one good of a bad one":   {[]string{reasonErrors, ""}, reasonErrors, true},
		"two good of a bad one":   {[]string{reasonErrors, "", ""}, "", false},
		"another reason at once":  {[]string{reasonErrors, reasonTimeout}, reasonTimeout, false},
		"another reason restarts": {[]string{reasonErrors, "", reasonTimeout, ""}, reasonTimeout, true},
	} {
		var h tracker
		for _, finding := range one.findings {
			h.finds(finding)
		}
		if got := h.verdict(time.Now()); got != one.want || h.unsure() != one.unsure {
			t.Errorf("%s: %q, unsure %v", name, got, h.unsure())
		}
	}
}

func TestGenerationsThatAllFailBenchAServerThatAnswersProbes(t *testing.T) {
	now := time.Unix(1000, 0)
	h := tracker{judged: true}
	for range failuresToBench - 1 {
		h.answered(false, now)
	}
	if h.verdict(now) != "" {
		t.Fatal("too soon")
	}
	h.answered(true, now)
	for range failuresToBench {
		h.answered(false, now)
	}
	h.finds("")
	if got := h.verdict(now.Add(benchTime - 1)); got != reasonFailing {
		t.Errorf("benched: %q", got)
	}
	if got := h.verdict(now.Add(benchTime)); got != "" {
		t.Errorf("afterwards: %q", got)
	}
	h.answered(true, now)
	if got := h.verdict(now); got != "" {
		t.Errorf("with a generation that succeeds: %q", got)
	}
}

// TestProbesNameWhatIsWrong asks real servers.
func TestProbesNameWhatIsWrong(t *testing.T) {
	hung := make(chan struct{})
	server := func(handle http.HandlerFunc) string {
		s := httptest.NewServer(handle)
		t.Cleanup(s.Close)
		return s.URL
	}
	waits := server(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hung:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(hung) })
	for want, url := range map[string]string{
		"":                 server(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, llamaCPP["/v1/models"]) }),
		reasonErrors:       server(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "broken", http.StatusInternalServerError) }),
		reasonUnauthorized: server(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "key?", http.StatusUnauthorized) }),
		reasonNoModels:     server(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"object":"list","data":[]}`) }),
		reasonUnreachable:  "http://127.0.0.1:1",
		reasonTimeout:      waits,
	} {
		u := probing(t, ResourceConfig{Name: "r", Kind: modelapi.KindModel, Upstream: url, Server: modelapi.ServerLlamaCPP})
		ctx, cancel := within(t), context.CancelFunc(func() {})
		if want == reasonTimeout {
			ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
		}
		found, err := u.probe(ctx)
		cancel()
		if got := u.finding(found, err); got != want {
			t.Errorf("want %q, got %q: %v", want, got, err)
		}
	}
}

// TestRelayIsToldForCertainWhatWasNotSent: what may have reached the upstream is never said not to have.
func TestRelayIsToldForCertainWhatWasNotSent(t *testing.T) {
	var hits atomic.Int64
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Request-Id") == "" {
			fmt.Fprint(w, `{"object":"list","data":[{"id":"phi3","owned_by":"x"},{"id":"llama3","owned_by":"x"}]}`)
			return
		}
		hits.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler) // it has read the request, and hangs up
	}))
	t.Cleanup(broken.Close)
	gone := newUpstream(t)
	resources := fmt.Sprintf("  - {name: phi3, kind: model, upstream: %q, models: [\"phi3\"]}\n  - {name: gone, kind: model, upstream: %q, server: openai}\n  - {name: db, kind: tcp, upstream: \"127.0.0.1:1\", opaque: true}\n",
		broken.URL, gone.URL)
	s := startHostileRelay(t).run(resources)
	gone.Close()
	other := chatHeader()
	other.Resource = "gone"
	unlisted := chatHeader()
	unlisted.Model = "llama3"
	for name, one := range map[string]struct {
		h       tunnel.Header
		payload []byte
		notSent bool
	}{
		"the upstream hangs up": {chatHeader(), httpRequest("POST", "/v1/chat/completions", chat("phi3")), false},
		"nobody listens":        {other, httpRequest("POST", "/v1/chat/completions", chat("phi3")), true},
		"not on its own list":   {unlisted, httpRequest("POST", "/v1/chat/completions", chat("llama3")), true},
		"not what was decided":  {chatHeader(), httpRequest("POST", "/v1/chat/completions", chat("llama3")), true},
		"tcp, nobody listens":   {tunnel.Header{Resource: "db", Kind: "tcp", Action: "connect"}, nil, true},
	} {
		if _, reply := send(t, s, one.h, one.payload); reply.OK || reply.NotSent != one.notSent {
			t.Errorf("%s: %+v", name, reply)
		}
	}
	if hits.Load() != 1 {
		t.Errorf("the upstream saw %d requests", hits.Load())
	}
}

// TestRequestWithoutEffectIsNotSentTwiceEither: net/http's transport repeats a GET whose reused connection breaks.
func TestRequestWithoutEffectIsNotSentTwiceEither(t *testing.T) {
	var hits atomic.Int64
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Break") != "" {
			hits.Add(1)
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, "ok")
	}))
	t.Cleanup(up.Close)
	s := startHostileRelay(t).run("  - {name: web, kind: http, upstream: \"" + up.URL + "\", opaque: true}\n")
	ask := func(method string, headers ...string) tunnel.Reply {
		h := tunnel.Header{Resource: "web", Kind: "http", Action: "connect", Method: method, Path: "/"}
		st, reply := send(t, s, h, httpRequest(method, "/", "", headers...))
		if reply.OK {
			response, err := http.ReadResponse(st.Reader(), nil)
			must(t, err)
			_, err = io.Copy(io.Discard, response.Body)
			must(t, err)
		}
		return reply
	}
	for i, one := range [][]string{{"GET", "X-Break: 1"}, {"HEAD", "X-Break: 1"}, {"OPTIONS", "X-Break: 1"}, {"POST", "X-Break: 1", "Idempotency-Key: 7", "Content-Length: 0"}} {
		if reply := ask("GET"); !reply.OK { // leaves a connection to be reused
			t.Fatalf("%+v", reply)
		}
		if reply := ask(one[0], one[1:]...); reply.OK || reply.NotSent {
			t.Errorf("%s: %+v", one[0], reply)
		}
		if got := hits.Load(); got != int64(i+1) {
			t.Fatalf("%s: the upstream has seen %d requests", one[0], got)
		}
	}
}

// TestResourceThatTurnedOutAModelServerIsRefused: a relay that was taken over need not keep to what is announced.
func TestResourceThatTurnedOutAModelServerIsRefused(t *testing.T) {
	up := newUpstream(t)
	s := startHostileRelay(t).run("  - {name: web, kind: http, upstream: \"" + up.URL + "\"}\n  - {name: db, kind: tcp, upstream: \"" + up.Listener.Addr().String() + "\"}\n")
	for _, h := range []tunnel.Header{
		{Resource: "web", Kind: "http", Action: "connect", Method: "POST", Path: "/v1/chat/completions"},
		{Resource: "db", Kind: "tcp", Action: "connect"},
	} {
		if _, reply := send(t, s, h, httpRequest("POST", "/v1/chat/completions", chat("phi3"))); reply.OK || reply.Code != tunnel.CodeNotAnnounced.String() {
			t.Errorf("%s: %+v", h.Resource, reply)
		}
	}
	if got := up.requests(); len(got) != 0 {
		t.Errorf("the upstream saw %q", got)
	}
}
