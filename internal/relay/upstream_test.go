package relay

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// modelNames are what the scripted model server offers.
var modelNames = []string{"phi3", "llama3"}

// modelServer is an upstream that the agent takes for a model server; what it answers to a chat is the test's.
type modelServer struct {
	*httptest.Server
	hits atomic.Int64 // requests that are no probe
}

func newModelServer(t testing.TB, chat http.HandlerFunc) *modelServer {
	t.Helper()
	m := &modelServer{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1/models" && r.Header.Get("X-Request-Id") == "": // the agent's probe
			fmt.Fprint(w, modelList())
		case r.URL.Path == "/v1/models":
			m.hits.Add(1)
			fmt.Fprint(w, modelList())
		case strings.HasPrefix(r.URL.Path, "/v1/"):
			m.hits.Add(1)
			chat(w, r)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(m.Close)
	return m
}

func modelList() string {
	var b strings.Builder
	for i, name := range modelNames {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":%q,"object":"model","owned_by":"test"}`, name)
	}
	return `{"object":"list","data":[` + b.String() + `]}`
}

// completion is a whole answer to a chat.
func completion(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":%q}}]}`, text)
}

// sse streams events until the caller leaves or release is closed, and tells when it began and ended.
type slowChat struct {
	begun, ended chan struct{} // one value for each answer
	release      chan struct{}
}

func newSlowChat() *slowChat {
	return &slowChat{begun: make(chan struct{}, 1024), ended: make(chan struct{}, 1024), release: make(chan struct{})}
}

// serve sends one event, then waits.
func (c *slowChat) serve(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"one\"}}]}\n\n")
	w.(http.Flusher).Flush()
	c.begun <- struct{}{}
	defer func() { c.ended <- struct{}{} }()
	select {
	case <-r.Context().Done():
	case <-c.release:
		fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"two\"}}]}\n\ndata: [DONE]\n\n")
	}
}

// chatBody is a chat request.
func chatBody(model string, stream bool) string {
	return fmt.Sprintf(`{"model":%q,"stream":%t,"messages":[{"role":"user","content":"hello"}]}`, model, stream)
}

func postChat(c *http.Client, body string) (*http.Response, error) {
	return c.Post("http://phi3/v1/chat/completions", "application/json", strings.NewReader(body))
}

// rawUpstream accepts connections and gives each to handle behind its request's head.
func rawUpstream(t testing.TB, handle func(conn net.Conn, r *http.Request, reader *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var serving sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[conn] = true
			mu.Unlock()
			serving.Go(func() {
				defer conn.Close()
				reader := bufio.NewReader(conn)
				r, err := http.ReadRequest(reader)
				if err != nil {
					return
				}
				switch r.URL.Path {
				case "/api/version", "/v1/models", "/info": // the agent's probes
					fmt.Fprint(conn, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
					return
				}
				handle(conn, r, reader)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	return "http://" + l.Addr().String()
}
