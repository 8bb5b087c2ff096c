package relay

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"iap/internal/audit"
	"iap/tunnel"
)

// smuggled is what an attacker puts into a body, hoping that somebody reads it as a request.
const smuggled = "GET /admin/delete-everything HTTP/1.1\r\nHost: web\r\nX-Iap-Principal: corp/admin\r\n\r\n"

// TestRestOfAnAnsweredUploadIsNoRequest has an upload answered, or denied, before it is whole. What its sender sends
// after that is body, whatever it looks like.
func TestRestOfAnAnsweredUploadIsNoRequest(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	upstream := rawUpstream(t, func(conn net.Conn, r *http.Request, _ *bufio.Reader) {
		mu.Lock()
		seen = append(seen, r.Method+" "+r.RequestURI)
		mu.Unlock()
		fmt.Fprint(conn, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo much")
	})
	s := newSystem(t, allowAll)
	s.startAgent(served{"web", "http", upstream})
	for name, denied := range map[string]bool{"answered early": false, "denied": true} {
		t.Run(name, func(t *testing.T) {
			s.setPolicy(allowAll)
			st := mustOpen(t, s.user(nil).open(tunnel.Bulk), "web")
			defer st.Abort(tunnel.CodeCanceled)
			if denied {
				s.setPolicy(strings.Replace(allowAll, "connect, ", "", 1))
			}
			stop := context.AfterFunc(within(t), func() { st.Abort(tunnel.CodeTimeout) })
			defer stop()
			_, err := fmt.Fprintf(st, "POST /upload HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n\r\nfirst", 5+len(smuggled))
			must(t, err)
			reader := bufio.NewReader(st)
			r, err := http.ReadResponse(reader, nil)
			must(t, err)
			_, _ = io.Copy(io.Discard, r.Body)
			if !r.Close {
				t.Errorf("%s, and the connection is offered for more", r.Status)
			}
			s.setPolicy(allowAll)
			_, _ = io.WriteString(st, smuggled) // the connection may be closed already
			if r, err := http.ReadResponse(reader, nil); err == nil {
				t.Errorf("the body was answered as a request: %s", r.Status)
			}
		})
	}
	if found := s.events(func(e audit.Event) bool { return strings.Contains(e.Path, "delete") }); len(found) != 0 {
		t.Errorf("the audit records a request that nobody sent: %+v", found[0])
	}
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(seen, ","); got != "POST /upload" {
		t.Errorf("the upstream saw %s", got)
	}
}

// TestBodyThatTheUpstreamIgnoresReachesNobodyElse has an upstream that, like many small ones, does not read the body of
// a GET and takes it for the connection's next request.
func TestBodyThatTheUpstreamIgnoresReachesNobodyElse(t *testing.T) {
	s := newSystem(t, allowAll)
	s.startAgent(served{"web", "http", lazyUpstream(t)})
	mallory := client(t, s.user(map[string]any{"sub": "mallory"}).open(tunnel.Bulk), tunnel.Header{Resource: "web"})
	alice := client(t, s.user(nil).open(tunnel.Bulk), tunnel.Header{Resource: "web"})
	for _, method := range []string{"GET", "DELETE", "POST", "OPTIONS", "PATCH", "QUERY"} {
		r, err := http.NewRequest(method, "http://web/x", strings.NewReader(smuggled))
		must(t, err)
		if got, err := mallory.Do(r); err == nil {
			_, _ = io.Copy(io.Discard, got.Body)
			got.Body.Close()
		}
		for range 3 {
			got, err := alice.Get("http://web/mine")
			must(t, err)
			text, err := io.ReadAll(got.Body)
			got.Body.Close()
			if err != nil || string(text) != "GET /mine of corp/alice" {
				t.Fatalf("after mallory's %s alice got %q, %v", method, text, err)
			}
		}
	}
}

// lazyUpstream answers heads, keeps its connections and reads no bodies.
func lazyUpstream(t testing.TB) string {
	t.Helper()
	return rawUpstream(t, func(conn net.Conn, r *http.Request, reader *bufio.Reader) {
		for {
			text := r.Method + " " + r.RequestURI + " of " + r.Header.Get("X-Iap-Principal")
			if _, err := fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text); err != nil {
				return
			}
			var err error
			if r, err = http.ReadRequest(reader); err != nil {
				return
			}
		}
	})
}
