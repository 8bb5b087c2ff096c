package relay

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"iap/internal/audit"
	"iap/internal/replay"
	"iap/tunnel"
)

// What the relay records is enough to decide it all again, and comes out as it was.
func TestRecordedDecisionsReplayAsTheyWere(t *testing.T) {
	m := newModelServer(t, func(w http.ResponseWriter, _ *http.Request) { completion(w, "hello") })
	s := newSystem(t, `grants:
  - {name: eng, to: ["group:corp/eng"], resources: [phi3], models: ["phi3:*", phi3], actions: [chat, list-models]}
  - {name: db, to: ["group:corp/eng"], resources: ["db"], actions: [connect]}
`)
	db, _ := watchedTCP(t, func() bool { return true })
	s.startAgent(served{"phi3", "model", m.URL}, served{"db", "tcp", db})
	session := s.user(map[string]any{"groups": []string{"eng"}}).open(tunnel.Interactive)
	models := client(t, session, tunnel.Header{Resource: "phi3"})
	chatOK(t, models, chatBody("phi3", false))
	if r, err := models.Post("http://phi3/v1/embeddings", "application/json", strings.NewReader(chatBody("phi3", false))); err == nil {
		r.Body.Close()
	}
	mustOpen(t, session, "db").Abort(tunnel.CodeCanceled)
	denied := s.user(map[string]any{"sub": "bob"}).open(tunnel.Interactive)
	if _, reply, err := openStream(within(t), denied, tunnel.Header{Resource: "db"}); err != nil || reply.OK {
		t.Fatalf("bob: %+v, %v", reply, err)
	}
	decisions := s.events(func(e audit.Event) bool { return e.Kind == audit.KindDecision })
	report, err := replay.Run(t.Context(), replay.Options{Dir: s.cfg.Audit.Dir, Since: time.Now().Add(-time.Hour), Decide: s.relay.policy.Decide})
	must(t, err)
	if report.Decided < 4 || report.Same != report.Decided || int(report.Decided) != len(decisions) || len(report.NotReplayed) != 0 {
		t.Errorf("%d decisions: %+v", len(decisions), report)
	}
}
