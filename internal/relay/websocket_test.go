package relay

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"iap/internal/audit"
	"iap/tunnel"
)

const grantsForAudio = `version: 1
grants:
  - name: engineers
    to: ["group:corp/ml-eng"]
    resources: ["*"]
    actions: [transcribe, list-models]
`

// newRealtime is a vLLM whose WebSocket says back what it hears, frame or not.
func newRealtime(t *testing.T) string {
	t.Helper()
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1/models":
			fmt.Fprint(w, `{"object":"list","data":[{"id":"phi3","object":"model","owned_by":"vllm"}]}`)
		case r.URL.Path == "/v1/realtime" && r.Header.Get("Upgrade") == "websocket":
			sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
			conn, buffered, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
			_, _ = io.Copy(conn, buffered)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(up.Close)
	return up.URL
}

// shake opens a stream and asks for a WebSocket on it.
func shake(t *testing.T, session *tunnel.Session) (*tunnel.Stream, *bufio.Reader, *http.Response) {
	t.Helper()
	st := mustOpen(t, session, "phi3")
	t.Cleanup(func() { st.Abort(tunnel.CodeCanceled) })
	_, err := io.WriteString(st, "GET /v1/realtime HTTP/1.1\r\nHost: phi3\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	must(t, err)
	reader := bufio.NewReader(st)
	response, err := http.ReadResponse(reader, nil)
	must(t, err)
	return st, reader, response
}

func TestAWebSocketGoesThroughAndEndsWithItsRight(t *testing.T) {
	s := newSystem(t, grantsForAudio)
	s.startAs("vllm", newRealtime(t))
	st, reader, response := shake(t, s.user(nil).open(tunnel.Interactive))
	if response.StatusCode != 101 || response.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		text, _ := io.ReadAll(response.Body)
		t.Fatalf("got %d %v %s", response.StatusCode, response.Header, text)
	}
	frame := "\x81\x05hello"
	for range 3 {
		_, err := io.WriteString(st, frame)
		must(t, err)
		back := make([]byte, len(frame))
		if _, err := io.ReadFull(reader, back); err != nil || string(back) != frame {
			t.Fatalf("read %q, %v", back, err)
		}
	}
	s.setPolicy(strings.Replace(grantsForAudio, "transcribe, ", "", 1))
	last, _ := io.ReadAll(reader)
	if len(last) < 4 || last[0] != 0x88 || !strings.Contains(string(last), "policy_changed") {
		t.Errorf("the last words are %q", last)
	}
	e := s.awaitEvent("the outcome", func(e audit.Event) bool { return e.Kind == audit.KindOutcome && e.Method == "WEBSOCKET" })
	if e.Ended != "policy_changed" || e.BytesIn != 21 || e.BytesOut != 21 || e.Action != "transcribe" {
		t.Errorf("outcome %+v", e)
	}
	eventually(t, "nothing runs", func() bool { return s.relay.inflight.models.Load() == 0 })
}

func TestAWebSocketIsRefusedBesideATokenLimit(t *testing.T) {
	s := newSystem(t, strings.TrimSuffix(grantsForAudio, "\n")+"\n    limits: {tokens: 1000/1h}\n")
	s.startAs("vllm", newRealtime(t))
	_, _, response := shake(t, s.user(nil).open(tunnel.Interactive))
	if text, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusForbidden || !strings.Contains(string(text), "websocket_limited") {
		t.Errorf("got %d %s", response.StatusCode, text)
	}
}

func TestAnAliasNamesItsModelAndAGoneModelWhatIsThere(t *testing.T) {
	up := httptest.NewServer(ollama(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), `"llama3:latest"`) {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error":{"message":"model 'llama3' not found"}}`)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"choices":[{"message":{"content":%q}}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`, string(body))
	}))
	t.Cleanup(up.Close)
	s := newSystem(t, allowAll)
	s.startAs("ollama", up.URL, `aliases: {default: "phi3:latest"}`)
	c := client(t, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	r, err := postChat(c, chatBody("default", false))
	must(t, err)
	defer r.Body.Close()
	if text, _ := io.ReadAll(r.Body); r.StatusCode != 200 || !strings.Contains(string(text), `phi3:latest`) {
		t.Errorf("by its alias: %d %s", r.StatusCode, text)
	}
	e := s.awaitEvent("the decision", func(e audit.Event) bool { return e.Kind == audit.KindDecision && e.Model != "" })
	if e.Model != "phi3:latest" || e.Detail["alias"] != "default" {
		t.Errorf("recorded %+v", e)
	}
	r, err = postChat(c, chatBody("llama3", false))
	must(t, err)
	defer r.Body.Close()
	if text, _ := io.ReadAll(r.Body); r.StatusCode != 404 || !strings.Contains(string(text), `"model_gone"`) || !strings.Contains(string(text), "it has phi3:latest, default\"") {
		t.Errorf("a model that is gone: %d %s", r.StatusCode, text)
	}
}

func TestAFullQueueIsA429ThatSaysWhere(t *testing.T) {
	slow := newSlowChat()
	up := httptest.NewServer(ollama(slow.serve))
	t.Cleanup(up.Close)
	s := newSystem(t, allowAll)
	s.startAs("ollama", up.URL, "capacity: 1", "queue: {max: 1}")
	c := client(t, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	answers := make(chan *http.Response, 2)
	for range 2 {
		go func() {
			r, err := postChat(c, chatBody("phi3", true))
			if err != nil {
				t.Error(err)
			}
			answers <- r
		}()
	}
	<-slow.begun
	first, second := <-answers, <-answers // the second waits, with its head sent ahead
	eventually(t, "a third is refused", func() bool {
		r, err := postChat(c, chatBody("phi3", false))
		must(t, err)
		defer r.Body.Close()
		text, _ := io.ReadAll(r.Body)
		return r.StatusCode == http.StatusTooManyRequests && r.Header.Get("Retry-After") != "" && strings.Contains(string(text), `"queue_full"`)
	})
	close(slow.release)
	for _, r := range []*http.Response{first, second} {
		text, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || !strings.HasSuffix(string(text), "data: [DONE]\n\n") {
			t.Errorf("one that waited read %q, %v", text, err)
		}
	}
}
