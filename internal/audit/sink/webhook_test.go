package sink

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"iap/internal/audit"
)

const testSecret = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// hook is a receiver of webhooks with faults. It believes nothing that is not signed.
type hook struct {
	*received
	*httptest.Server
	mu    sync.Mutex
	fault func(lines int) string // what to do with a batch; "" takes it
}

func newHook(t testing.TB, fault func(lines int) string) *hook {
	h := &hook{received: newReceived(), fault: fault}
	h.Server = httptest.NewServer(h)
	t.Cleanup(h.Close)
	return h
}

func (h *hook) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	h.mu.Lock()
	var buffered strings.Builder
	_, err := io.Copy(&buffered, io.LimitReader(q.Body, 2*maxBytes))
	body := buffered.String()
	fault := h.fault(strings.Count(body, "\n"))
	h.mu.Unlock()
	if err != nil {
		return
	}
	switch fault {
	case "":
		h.check(q, body)
		h.take(q.Header.Get("Webhook-Id"), body)
		w.WriteHeader(http.StatusNoContent)
	case "reset":
		reset(w)
	case "taken, and reset":
		h.check(q, body)
		h.take(q.Header.Get("Webhook-Id"), body)
		reset(w)
	case "hang":
		<-q.Context().Done()
	case "redirect":
		http.Redirect(w, q, "/elsewhere", http.StatusTemporaryRedirect)
	default:
		status, _ := strconv.Atoi(fault)
		w.Header().Set("Retry-After", "1")
		http.Error(w, "not now", status)
	}
}

// reset ends a connection in the middle of an answer.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Le")
		conn.Close()
	}
}

func (h *hook) check(q *http.Request, body string) {
	key, err := base64.StdEncoding.DecodeString(testSecret)
	if err != nil {
		panic(err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(q.Header.Get("webhook-id") + "." + q.Header.Get("webhook-timestamp") + "." + body))
	signed := base64.StdEncoding.EncodeToString(mac.Sum(nil)) == strings.TrimPrefix(q.Header.Get("webhook-signature"), "v1,")
	if !signed || q.URL.Path != "/in" || q.Header.Get("Content-Type") != "application/x-ndjson" || q.Header.Get("Iap-Audit-Log") != origin {
		h.received.mu.Lock()
		h.wrong = append(h.wrong, fmt.Sprintf("%s %v", q.URL, q.Header))
		h.received.mu.Unlock()
	}
}

func (h *hook) config(t testing.TB, name string) Config {
	return Config{Name: name, Type: Webhook, URL: h.URL + "/in", From: FromStart, SecretFile: writeFile(t, "secret", "whsec_"+testSecret+"\n")}
}

func healthy(int) string { return "" }

func TestWebhooksAreSignedAsTheStandardSays(t *testing.T) {
	secrets, err := readSecrets(writeFile(t, "secret", "\nwhsec_"+testSecret+"\n\n"+testSecret+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	one := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	if got := sign(secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`)); got != one+" "+one {
		t.Errorf("signed %s", got)
	}
	for _, bad := range []string{"", "whsec_", "whsec_c2hvcnQ=", "no base64", strings.Repeat("QUJD", 30)} {
		if _, err := readSecrets(writeFile(t, "secret", bad)); err == nil || strings.Contains(err.Error(), "c2hvcnQ") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// Whatever a receiver does, and however often the relay begins anew, in the end it has the log: whole, in order, and what
// came twice came under the same id.
func TestWebhookHasTheWholeLogAfterAnyFaults(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			faults := []string{"", "", "500", "503", "429", "401", "reset", "taken, and reset", "hang", "redirect"}
			most := 20 + random.IntN(200)
			h := newHook(t, func(lines int) string {
				if lines > most {
					return "413"
				}
				return faults[random.IntN(len(faults))]
			})
			l := newLog(t, audit.Options{SegmentBytes: 16 << 10})
			o := l.options()
			o.Within = 50 * time.Millisecond // a hanging receiver is given up soon; one that is slow only takes a batch twice
			c := h.config(t, "hook")
			for range 8 {
				s := start(t, o, c)
				l.write(t, 150)
				select {
				case <-h.news:
				case <-t.Context().Done():
				}
				s.Close()
			}
			h.mu.Lock()
			h.fault = healthy
			h.mu.Unlock()
			o.Within = patience
			start(t, o, c)
			h.wait(t, len(l.lines(t)))
			h.want(t, l.lines(t))
		})
	}
}

func TestWebhookWithTheWrongCertificateGetsNothing(t *testing.T) {
	h := &hook{received: newReceived(), fault: healthy}
	h.Server = httptest.NewUnstartedServer(h)
	h.Config.ErrorLog = silent()
	h.StartTLS()
	t.Cleanup(h.Close)
	l := newLog(t, audit.Options{})
	l.write(t, 3)
	c := h.config(t, "stranger")
	s := start(t, l.options(), c)
	eventually(t, "the certificate is refused", func() bool {
		return strings.Contains(s.States(t.Context())[0].Error, "certificate")
	})
	if got := h.lines(); len(got) != 0 {
		t.Errorf("%d records went to a stranger", len(got))
	}
	s.Close()
	c.CAFile = writeFile(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw})))
	start(t, l.options(), c)
	h.wait(t, len(l.lines(t)))
	h.want(t, l.lines(t))
}

func TestRecordThatIsTooLargeByItselfIsCountedAndPassedOver(t *testing.T) {
	l := newLog(t, audit.Options{})
	l.write(t, 40)
	want := l.lines(t)
	h := newHook(t, nil)
	h.fault = healthy
	h.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil || strings.Contains(string(body), `"session":"s-17"`) || strings.Count(string(body), "\n") > 8 {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
			return
		}
		h.take(q.Header.Get("Webhook-Id"), string(body))
	})
	s := start(t, l.options(), h.config(t, "hook"))
	h.wait(t, len(want)) // one is left out, and one tells of it
	state := s.States(t.Context())[0]
	if state.Lost != 1 || state.Error != "" {
		t.Errorf("%+v", state)
	}
	told := l.lines(t)[len(want)]
	e, err := audit.Parse([]byte(told))
	if err != nil || e.Reason != ReasonGap || e.Count != 1 || e.Detail["sink"] != "hook" {
		t.Errorf("recorded %s", told)
	}
	h.want(t, append(append(append([]string(nil), want[:18]...), want[19:]...), told))
}

func TestAnswersOfReceiversDecideWhenToAskAgain(t *testing.T) {
	now := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "-1": 0, "soon": 0, "Tue, 24 Nov 2026 09:01:00 GMT": time.Minute, "Tue, 24 Nov 2026 08:00:00 GMT": 0} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
	for _, try := range []int{0, 1, 5, 1000} {
		passing, lasting := pause(try, &refusal{status: 503}), pause(try, &refusal{status: 401})
		if passing <= 0 || passing > longestPause || lasting < refusedPause/2 || lasting > refusedLong {
			t.Errorf("try %d: %s, %s", try, passing, lasting)
		}
		if d := pause(try, nil); d <= 0 || d > longestPause {
			t.Errorf("try %d: %s", try, d)
		}
	}
	if d := pause(0, &refusal{status: 429, after: 3 * time.Minute}); d != 3*time.Minute {
		t.Errorf("Retry-After: %s", d)
	}
	if d := pause(0, &refusal{status: 429, after: 365 * 24 * time.Hour}); d != longestAsked {
		t.Errorf("a receiver asks for %s", d)
	}
	for _, secret := range []string{"https://hooks.example.com/T0/s3cret"} {
		p := &poster{url: secret, now: time.Now, client: http.Client{Transport: refusing{}}}
		if _, err := p.post(t.Context(), nil, nil); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v", err)
		}
	}
}

type refusing struct{}

func (refusing) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New("refused") }

// A receiver that hangs has a sink of its own: no record and no other sink waits for it, and Close does not either.
func TestHangingReceiverHoldsUpNobody(t *testing.T) {
	hanging, quick := newHook(t, func(int) string { return "hang" }), newHook(t, healthy)
	l := newLog(t, audit.Options{})
	s := start(t, l.options(), hanging.config(t, "hanging"), quick.config(t, "quick"))
	l.write(t, 5000)
	quick.wait(t, len(l.lines(t)))
	quick.want(t, l.lines(t))
	states := s.States(t.Context())
	if states[0].Sent != 0 || states[0].Behind != uint64(len(l.lines(t))) {
		t.Errorf("%+v", states)
	}
	eventually(t, "the quick one is confirmed", func() bool { return s.States(t.Context())[1].Behind == 0 })
	if err := s.Close(); err != nil { // it hangs within a try that has all of patience left
		t.Error(err)
	}
}

func silent() *log.Logger { return log.New(io.Discard, "", 0) }
