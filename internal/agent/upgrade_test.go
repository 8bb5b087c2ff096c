package agent

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"iap/tunnel"
)

// realtime is a vLLM with a WebSocket, whose handshake spoil may change.
type realtime struct {
	*httptest.Server
	heads chan http.Header
	ended chan struct{} // a WebSocket's handler returned
}

func newRealtime(t testing.TB, spoil func(h http.Header)) *realtime {
	t.Helper()
	s := &realtime{heads: make(chan http.Header, 8), ended: make(chan struct{}, 8)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/models":
			fmt.Fprint(w, `{"object":"list","data":[{"id":"voxtral","owned_by":"vllm"}]}`)
		case "/v1/realtime":
			s.heads <- r.Header
			h := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Accept": {acceptOf(r.Header.Get("Sec-Websocket-Key"))}, "Set-Cookie": {"a=b"}}
			spoil(h)
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer func() { conn.Close(); s.ended <- struct{}{} }()
			fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\n")
			_ = h.Write(rw)
			fmt.Fprint(rw, "\r\nhello")
			_ = rw.Flush()
			_, _ = io.Copy(conn, rw)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func wsHeader() tunnel.Header {
	return tunnel.Header{Resource: "voxtral", Kind: "model", Principal: "corp/alice", Action: "transcribe", Model: "voxtral", Method: "GET", Path: "/v1/realtime"}
}

func wsRequest() []byte {
	return httpRequest("GET", "/v1/realtime", "", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
		"Sec-WebSocket-Protocol: realtime, other", "Sec-WebSocket-Extensions: permessage-deflate", "Origin: https://evil", "Authorization: Bearer caller")
}

func TestWebSocketCarriesBytesBothWaysUntilOneSideEnds(t *testing.T) {
	up := newRealtime(t, func(h http.Header) { h.Set("Sec-Websocket-Protocol", "realtime") })
	a, s := startHostileRelay(t).runAs("  - {name: voxtral, kind: model, upstream: \""+up.URL+"\", capacity: 1}\n", atOnce)
	st, reply := send(t, s, wsHeader(), wsRequest())
	if !reply.OK {
		t.Fatalf("%+v", reply)
	}
	response, err := http.ReadResponse(st.Reader(), nil)
	must(t, err)
	h := response.Header
	if response.StatusCode != 101 || h.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || h.Get("Sec-Websocket-Protocol") != "realtime" || len(h["Set-Cookie"]) > 0 {
		t.Errorf("%d %v", response.StatusCode, h)
	}
	sent := <-up.heads
	if key := sent.Get("Sec-Websocket-Key"); key == "" || key == "dGhlIHNhbXBsZSBub25jZQ==" || len(sent["Origin"])+len(sent["Authorization"])+len(sent["Sec-Websocket-Extensions"]) > 0 {
		t.Errorf("the upstream saw %v", sent)
	}
	_, err = io.WriteString(st, ", world")
	must(t, err)
	got := make([]byte, len("hello, world"))
	_, err = io.ReadFull(st.Reader(), got)
	must(t, err)
	if string(got) != "hello, world" {
		t.Errorf("%q", got)
	}
	if !slotTaken(a.upstreams[0].queue) {
		t.Error("a WebSocket holds no slot")
	}
	must(t, st.CloseWrite())
	if rest, err := io.ReadAll(st.Reader()); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	<-up.ended
	second, reply := send(t, s, wsHeader(), wsRequest()) // gets the slot
	if !reply.OK {
		t.Fatalf("%+v", reply)
	}
	second.Abort(tunnel.CodeRevoked)
	<-up.ended
}

// TestIdleWebSocketGivesWay has one person hold the only slot with a WebSocket on which nothing is said.
func TestIdleWebSocketGivesWay(t *testing.T) {
	up := newRealtime(t, func(http.Header) {})
	_, s := startHostileRelay(t).runAs("  - {name: voxtral, kind: model, upstream: \""+up.URL+"\", capacity: 1}\n", func(a *Agent) {
		atOnce(a)
		a.upstreams[0].queue.limits.maxWait = 20 * time.Millisecond
	})
	idle, reply := send(t, s, wsHeader(), wsRequest())
	if !reply.OK {
		t.Fatalf("%+v", reply)
	}
	_, err := http.ReadResponse(idle.Reader(), nil)
	must(t, err)
	other := wsHeader()
	other.Principal = "corp/bob"
	for limit := within(t); ; { // one that waited too long comes again
		if _, reply := send(t, s, other, wsRequest()); reply.OK {
			break
		}
		must(t, limit.Err())
	}
	_, err = io.ReadAll(idle.Reader())
	var abort *tunnel.AbortError
	if !errors.As(err, &abort) || abort.Code != tunnel.CodeQueueFull {
		t.Errorf("the idle one ended with %v", err)
	}
}

func TestWebSocketThatDoesNotFitIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(h http.Header){
		"accept of another key":           func(h http.Header) { h.Set("Sec-Websocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") },
		"no accept":                       func(h http.Header) { h.Del("Sec-Websocket-Accept") },
		"another protocol":                func(h http.Header) { h.Set("Upgrade", "h2c") },
		"an extension":                    func(h http.Header) { h.Set("Sec-Websocket-Extensions", "permessage-deflate") },
		"a subprotocol nobody offered":    func(h http.Header) { h.Set("Sec-Websocket-Protocol", "admin") },
		"no word of it in the Connection": func(h http.Header) { h.Set("Connection", "keep-alive") },
	} {
		up := newRealtime(t, spoil)
		s := startHostileRelay(t).run("  - {name: voxtral, kind: model, upstream: \"" + up.URL + "\"}\n")
		if _, reply := send(t, s, wsHeader(), wsRequest()); reply.OK || reply.Code != "upstream_reset" {
			t.Errorf("%s: %+v", name, reply)
		}
	}
	plain := newRealtime(t, func(http.Header) {})
	s := startHostileRelay(t).run("  - {name: voxtral, kind: model, upstream: \"" + plain.URL + "\"}\n")
	for name, payload := range map[string][]byte{
		"no upgrade":            httpRequest("GET", "/v1/realtime", ""),
		"another upgrade":       httpRequest("GET", "/v1/realtime", "", "Connection: Upgrade", "Upgrade: h2c"),
		"not in the Connection": httpRequest("GET", "/v1/realtime", "", "Upgrade: websocket"),
	} {
		if _, reply := send(t, s, wsHeader(), payload); reply.OK {
			t.Errorf("%s passed", name)
		}
	}
	if _, reply := send(t, s, tunnel.Header{Resource: "voxtral", Kind: "model", Action: "list-models", Model: "", Method: "GET", Path: "/v1/models"},
		[]byte(strings.Replace(string(wsRequest()), "/v1/realtime", "/v1/models", 1))); reply.OK {
		t.Error("an upgrade of a route that has none passed")
	}
	select {
	case h := <-plain.heads:
		t.Errorf("the upstream was asked: %v", h)
	default:
	}
}
