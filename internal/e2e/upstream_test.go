package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"iap/internal/dev"
)

// upstream is a server behind an agent, in this process, that remembers what it was asked.
type upstream struct {
	url string

	mu   sync.Mutex
	seen []seenRequest // guarded by mu
}

// seenRequest is a request as it arrived.
type seenRequest struct {
	method, path string
	header       http.Header
	body         string
}

// id is the id under which the audit log knows the request.
func (q seenRequest) id() string { return q.header.Get("X-Request-Id") }

// startUpstream serves h, recorded, until the test ends. The agent's own questions carry no id and are not recorded.
func startUpstream(t *testing.T, h http.Handler) *upstream {
	t.Helper()
	u := &upstream{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if q := (seenRequest{method: r.Method, path: r.URL.RequestURI(), header: r.Header.Clone()}); q.id() != "" {
			if r.Header.Get("Content-Type") == "application/json" {
				body, _ := io.ReadAll(r.Body) // a body that broke off is the handler's to notice
				q.body = string(body)
				r.Body = io.NopCloser(bytes.NewReader(body))
			}
			u.mu.Lock()
			u.seen = append(u.seen, q)
			u.mu.Unlock()
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	u.url = server.URL
	return u
}

func (u *upstream) requests() []seenRequest {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]seenRequest(nil), u.seen...)
}

// count is how many requests carried text in their body.
func (u *upstream) count(text string) int {
	n := 0
	for _, q := range u.requests() {
		if strings.Contains(q.body, text) {
			n++
		}
	}
	return n
}

// startDemo serves the demo model, recorded.
func startDemo(t *testing.T, tokensPerSecond float64) (*upstream, *dev.DemoModel) {
	t.Helper()
	m := dev.Model(dev.ModelOptions{TokensPerSecond: tokensPerSecond})
	return startUpstream(t, m), m
}

// trick is how a scripted server answers a request for one of its models. gone is closed when the client is.
type trick func(w http.ResponseWriter, gone <-chan struct{})

// startScripted serves an OpenAI or Ollama server whose models each play one trick.
func startScripted(t *testing.T, ollama bool, tricks map[string]trick) *upstream {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		var list []string
		for name := range tricks {
			list = append(list, fmt.Sprintf(`{"id":%q,"object":"model","created":1,"owned_by":"test"}`, name))
		}
		answerJSON(w, `{"object":"list","data":[`+strings.Join(list, ",")+`]}`)
	})
	if ollama {
		mux.HandleFunc("GET /api/version", func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, `{"version":"0.12.0"}`) })
		mux.HandleFunc("GET /api/tags", func(w http.ResponseWriter, _ *http.Request) { answerJSON(w, `{"models":[]}`) })
	}
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Model string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		name, _, _ := strings.Cut(in.Model, ":")
		play := tricks[name]
		if play == nil {
			http.Error(w, "no such model: "+in.Model, http.StatusNotFound)
			return
		}
		play(w, r.Context().Done())
	})
	return startUpstream(t, mux)
}

func answerJSON(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, body) // a prober that left needs no answer
}

// chunk is one event of a streamed chat.
func chunk(text string) string {
	return fmt.Sprintf(`data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":%q},"finish_reason":null}]}`+"\n\n", text)
}

// say sends a piece of an answer at once.
func say(w http.ResponseWriter, kind, text string) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", kind)
	}
	_, _ = io.WriteString(w, text) // a client that left shows in gone
	_ = http.NewResponseController(w).Flush()
}

// reset cuts the connection under an answer so that the reader gets an error of TCP's.
func reset(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}
