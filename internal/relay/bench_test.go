package relay

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/guard"
	"iap/policy"
)

// grants200 are as many as a company has: a few for everybody, most for one team each.
func grants200() string {
	var b strings.Builder
	b.WriteString("version: 1\ngrants:\n")
	for i := range 200 {
		fmt.Fprintf(&b, "  - {name: g%d, to: [\"group:corp/team-%d\"], resources: [\"phi3\", \"label:env=t%d\"], models: [\"phi3:*\", \"m*\"], actions: [chat, embed, list-models], limits: {requests: 60/1m, tokens: 200000/24h, max_output_tokens: 2048}}\n", i, i, i)
	}
	return b.String()
}

// unkept counts what is written and keeps nothing.
type unkept struct{ header http.Header }

func (w *unkept) Header() http.Header         { return w.header }
func (w *unkept) WriteHeader(int)             {}
func (w *unkept) Write(p []byte) (int, error) { return len(p), nil }
func (w *unkept) FlushError() error           { return nil }

// BenchmarkChat4KiB is what a chat of 4 KiB costs from its arrival to the bytes that go upstream, with 200 grants:
// classified, decided, its body rewritten. Network, limits and the audit's disk are left out. Where the decision is
// cold, the policy has not been asked this question before.
func BenchmarkChat4KiB(b *testing.B) {
	s := newSystem(b, grants200())
	s.relay.agents.enrolled(&agentRecord{ID: "a", Resources: []admin.JoinResource{{Name: "phi3", Kind: "model"}}})
	g := &guard.Guard{
		Decide: s.relay.decide, Salt: func(*guard.Caller) string { return "salt" },
		Record: func(context.Context, guard.Event) error { return nil },
		NewID:  func() string { return "rq" },
		Forward: func(_ context.Context, q *guard.Request) (*guard.Response, error) {
			if len(q.Body) < 4<<10 {
				b.Fatalf("sent %d bytes", len(q.Body))
			}
			return &guard.Response{Status: http.StatusNoContent, Header: http.Header{}, Body: http.NoBody}, nil
		},
	}
	id := &identity{principal: auth.Principal{Issuer: "corp", Subject: "alice"}, policy: policy.Principal{
		Issuer: "corp", Subject: "alice", Groups: []string{"everybody", "engineering", "berlin", "team-100", "chess"},
	}}
	h := g.Handler(guard.Resource{Name: "phi3", Kind: "model", Server: "vllm"}, &guard.Caller{Principal: "corp/alice", Via: "tunnel", Value: bearer{id}})
	text := strings.Repeat("All work and no play makes a dull prompt. ", 97)
	serve := func(model string) {
		body := `{"model":"` + model + `","stream":true,"temperature":0.2,"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"` + text + `"}]}`
		r, err := http.NewRequest(http.MethodPost, "http://x/v1/chat/completions", io.NopCloser(strings.NewReader(body)))
		must(b, err)
		r.RequestURI, r.ContentLength, r.Header = "/v1/chat/completions", int64(len(body)), http.Header{"Content-Type": {"application/json"}}
		h.ServeHTTP(&unkept{http.Header{}}, r)
	}
	b.Run("warm", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			serve("m1")
		}
	})
	b.Run("cold", func(b *testing.B) {
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			n++
			serve(fmt.Sprintf("m%d-%d", b.N, n))
		}
	})
}
