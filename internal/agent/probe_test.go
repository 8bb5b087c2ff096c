package agent

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"iap/internal/modelapi"
)

func probeOf(t testing.TB, kind, upstreamURL string, opaque bool) (probed, error) {
	t.Helper()
	u := probing(t, ResourceConfig{Name: "r", Kind: kind, Upstream: upstreamURL, Opaque: opaque})
	return u.probe(within(t))
}

func serverWith(t testing.TB, answers map[string]string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := answers[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, body)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

var (
	llamaCPP = map[string]string{"/v1/models": `{"object":"list","data":[{"id":"model.gguf","owned_by":"llamacpp"}]}`}
	website  = map[string]string{"/": "hello", "/v1/models": "<html>", "/api/version": "<html>", "/info": "<html>", "/version": `{"version":"3"}`}
)

// TestDatabaseThatSpeaksFirstIsHealthy stands for servers that greet, wait or hang up when spoken HTTP to.
func TestDatabaseThatSpeaksFirstIsHealthy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, "J\x00\x00\x00\n8.0.36 greeting")
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	if got, err := probeOf(t, modelapi.KindTCP, l.Addr().String(), false); err != nil || !got.healthy || got.foreign {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestProbeIsBoundedByWhatItReads(t *testing.T) {
	var list strings.Builder
	list.WriteString(`{"object":"list","data":[`)
	for i := range maxModels * 3 {
		if i > 0 {
			list.WriteByte(',')
		}
		fmt.Fprintf(&list, `{"id":"m%d","owned_by":"x"}`, i)
	}
	list.WriteString(`,{"id":"` + strings.Repeat("n", 300) + `"}]}`)
	got, err := probeOf(t, modelapi.KindModel, serverWith(t, map[string]string{"/v1/models": list.String()}), false)
	if err != nil || len(got.models) != maxModels {
		t.Errorf("%d models, %v", len(got.models), err)
	}
	huge := `{"object":"list","data":[],"fill":"` + strings.Repeat("x", maxProbe) + `"}`
	if got, err := probeOf(t, modelapi.KindModel, serverWith(t, map[string]string{"/v1/models": huge}), false); err == nil {
		t.Errorf("an endless list: %+v", got)
	}
}

func TestProbeFollowsNoRedirect(t *testing.T) {
	reached := false
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	t.Cleanup(other.Close)
	s := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusFound))
	t.Cleanup(s.Close)
	if got, err := probeOf(t, modelapi.KindModel, s.URL, false); err == nil || got.healthy {
		t.Errorf("%+v, %v", got, err)
	}
	if reached {
		t.Error("a redirect was followed")
	}
}

// TestFailedProbeForgetsNothing: a server that is busy or restarting is still the server it was. Were its models
// forgotten, the name in a request would be believed that such a server ignores.
func TestFailedProbeForgetsNothing(t *testing.T) {
	var down atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() || r.URL.Path != "/v1/models" {
			http.Error(w, "loading", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, llamaCPP["/v1/models"])
	}))
	t.Cleanup(s.Close)
	relay := startHostileRelay(t)
	cfg, err := LoadConfig(relay.agentConfig("  - {name: gpu, kind: model, upstream: \"" + s.URL + "\"}\n"))
	must(t, err)
	a, err := New(cfg, nil)
	must(t, err)
	t.Cleanup(a.transport.CloseIdleConnections)
	a.probeAll(within(t))
	before := a.announcements()[0]
	if before.Server != "llama.cpp" || len(before.Models) != 1 || !before.Healthy {
		t.Fatalf("%+v", before)
	}
	only := modelapi.OnlyModel(a.upstreams[0].server(), a.upstreams[0].announced())
	down.Store(true)
	a.probeAll(within(t))
	if once := a.announcements()[0]; !once.Healthy {
		t.Errorf("one lost probe: %+v", once)
	}
	a.probeAll(within(t))
	after := a.announcements()[0]
	if after.Healthy || after.Reason != reasonErrors || after.Server != before.Server || !slices.Equal(after.Models, before.Models) || modelapi.OnlyModel(a.upstreams[0].server(), a.upstreams[0].announced()) != only || only == "" {
		t.Errorf("before %+v (only %q), after %+v (only %q)", before, only, after, modelapi.OnlyModel(a.upstreams[0].server(), a.upstreams[0].announced()))
	}
}

// TestServerThatNobodyKnowsYetGetsNoModelRequests has a server that was down since the agent's start.
func TestServerThatNobodyKnowsYetGetsNoModelRequests(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			t.Error("the upstream was asked")
		}
		http.Error(w, "loading", http.StatusServiceUnavailable)
	}))
	t.Cleanup(up.Close)
	s := startHostileRelay(t).run("  - {name: phi3, kind: model, upstream: \"" + up.URL + "\"}\n")
	if _, reply := send(t, s, chatHeader(), httpRequest("POST", "/v1/chat/completions", chat("phi3"))); reply.OK {
		t.Error("a request went to a server whose kind and models are unknown")
	}
}
