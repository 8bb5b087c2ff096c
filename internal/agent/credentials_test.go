package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

const secret = "sk-upstream-secret"

// newEcho is a model server that repeats what it was told, in its headers and in its error.
func newEcho(t testing.TB) (url string, told func() string) {
	t.Helper()
	var mu sync.Mutex
	var all strings.Builder
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		_ = r.Header.Write(&all)
		mu.Unlock()
		if r.Method == http.MethodGet {
			if r.URL.Path == "/v1/models" {
				fmt.Fprint(w, `{"object":"list","data":[{"id":"phi3","owned_by":"x"},{"id":"llama3","owned_by":"x"}]}`)
				return
			}
			http.Error(w, "refused for "+r.Header.Get("Authorization"), http.StatusTeapot)
			return
		}
		w.Header().Set("X-Echo", r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":{"message":"Incorrect API key provided: %s"}}`, r.Header.Get("Authorization"))
	}))
	t.Cleanup(s.Close)
	return s.URL, func() string {
		mu.Lock()
		defer mu.Unlock()
		return all.String()
	}
}

// TestKeysStayOnTheirSide: the caller's credentials never reach the upstream, the upstream's reach nobody.
func TestKeysStayOnTheirSide(t *testing.T) {
	t.Setenv("IAP_TEST_UPSTREAM_KEY", secret)
	url, told := newEcho(t)
	var log bytes.Buffer
	relay := startHostileRelay(t)
	file := relay.agentConfig("  - {name: phi3, kind: model, upstream: \"" + url + "\", api_key_env: IAP_TEST_UPSTREAM_KEY}\n")
	a := relay.agent(file)
	a.log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	t.Cleanup(func() { // after the agent has ended
		if strings.Contains(log.String(), secret) || log.Len() == 0 {
			t.Errorf("the log: %s", log.String())
		}
	})
	relay.launch(a)
	st, reply := send(t, relay.session(), chatHeader(), httpRequest("POST", "/v1/chat/completions", chat("phi3"),
		"Authorization: Bearer caller-secret", "Proxy-Authorization: Basic caller-secret", "Cookie: s=caller-secret", "X-Api-Key: caller-secret", "Api-Key: caller-secret"))
	if !reply.OK {
		t.Fatalf("%+v", reply)
	}
	response, err := http.ReadResponse(st.Reader(), nil)
	must(t, err)
	body, err := io.ReadAll(response.Body)
	must(t, err)
	var answer bytes.Buffer
	_ = response.Header.Write(&answer)
	answer.Write(body)
	var checked strings.Builder
	for _, r := range Check(within(t), file).Stages {
		fmt.Fprintln(&checked, r)
	}
	for where, text := range map[string]string{"answer": answer.String(), "check": checked.String()} {
		if strings.Contains(text, secret) {
			t.Errorf("the upstream's key is in the %s: %s", where, text)
		}
	}
	if !strings.Contains(string(body), strings.Repeat("*", len(secret))) {
		t.Errorf("the upstream did not echo: %s", body)
	}
	if got := told(); strings.Contains(got, "caller-secret") || !strings.Contains(got, "Bearer "+secret) {
		t.Errorf("the upstream was told %s", got)
	}
}

// TestMaskHidesEveryKeyHoweverCut compares with a replacement of the whole text.
func TestMaskHidesEveryKeyHoweverCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.StringMatching(`[ab]{1,5}`).Draw(t, "key")
		text := rapid.StringMatching(`[abc]{0,200}`).Draw(t, "text")
		size := rapid.IntRange(1, 64).Draw(t, "size")
		var in io.Reader = strings.NewReader(text)
		for _, cut := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader} {
			if rapid.Bool().Draw(t, "cut") {
				in = cut(in)
			}
		}
		m := newMaskReader(in, key)
		var got []byte
		p := make([]byte, size)
		for {
			n, err := m.Read(p)
			got = append(got, p[:n]...)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if want := strings.ReplaceAll(text, key, strings.Repeat("*", len(key))); string(got) != want {
			t.Fatalf("%q became %q, want %q", text, got, want)
		}
	})
}
