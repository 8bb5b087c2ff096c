package relay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"iap/internal/admin"
	"iap/internal/audit"
	"iap/tunnel"
)

// TestAG01GuessesAreLimited: ten thousand guesses are ten, and the rest is told to wait, whatever they guess. The
// good token is worth as much as before, from elsewhere.
func TestAG01GuessesAreLimited(t *testing.T) {
	s := newSystem(t, allowAll)
	good := s.parsedToken(false, served{"web", "http", ""})
	key := newKey(t)
	answers := map[string]int{}
	for range 10_000 {
		guess := good
		guess.ID, guess.Secret = newID("join"), []byte(rand.Text())
		_, err := s.relay.join(t.Context(), "192.0.2.7:1", joinRequest(guess, key))
		var refused *admin.Error
		if !errors.As(err, &refused) {
			t.Fatalf("a guess: %v", err)
		}
		answers[refused.Code+" "+refused.Message]++
		if answers[refused.Code+" "+refused.Message] > 9_990 {
			t.Fatalf("%v", answers)
		}
	}
	if len(answers) != 2 {
		t.Errorf("answers: %v", answers)
	}
	for text, n := range answers {
		if want := map[bool]int{true: joinTries, false: 10_000 - joinTries}[strings.HasPrefix(text, "join_refused")]; n != want {
			t.Errorf("%d times: %s", n, text)
		}
	}
	if _, _, err := s.postJoin(good); err != nil {
		t.Errorf("the good token, from elsewhere: %v", err)
	}
	denied := s.events(func(e audit.Event) bool { return e.Kind == audit.KindAgent && e.Decision == audit.Deny })
	if len(denied) == 0 || len(denied) > 2*joinTries {
		t.Errorf("%d records of refusals", len(denied))
	}
}

// TestAG01RevokedTokenIsLikeNone.
func TestAG01RevokedTokenIsLikeNone(t *testing.T) {
	s := newSystem(t, allowAll)
	token, unknown := s.parsedToken(false, served{"web", "http", ""}), s.parsedToken(false, served{"other", "http", ""})
	unknown.ID = newID("join")
	must(t, s.admin.RevokeJoinToken(within(t), token.ID))
	key := newKey(t)
	if revoked, none := rawJoin(t, s, joinRequest(token, key)), rawJoin(t, s, joinRequest(unknown, key)); revoked != none || !strings.HasPrefix(revoked, "403 ") {
		t.Errorf("revoked: %s\nnone: %s", revoked, none)
	}
}

// TestAG03JoinTokenIsWrittenNowhere: neither secret nor token reaches the relay's folders, audit log and state alike.
func TestAG03JoinTokenIsWrittenNowhere(t *testing.T) {
	s := newSystem(t, allowAll)
	created := s.joinToken(false, served{"web", "http", ""})
	token, spent := s.parsedToken(false, served{"db", "tcp", ""}), created.Token
	_, _, err := s.postJoin(token)
	must(t, err)
	must(t, s.end())
	secrets := []string{spent, token.Encode(), string(token.Secret)}
	must(t, filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		for _, secret := range secrets {
			if strings.Contains(string(data), secret) {
				t.Errorf("%s holds a token's secret", path)
			}
		}
		return err
	}))
}

// TestAG07AnnouncementOfOthersNamesIsRefused, whole, and what runs under these names does not notice.
func TestAG07AnnouncementOfOthersNamesIsRefused(t *testing.T) {
	s, c := newWeb(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "genuine") })
	fake := s.enrolFake(false, served{"mine", "http", ""})
	own := tunnel.Announcement{Resource: "mine", Kind: "http", Healthy: true}
	session, err := fake.connect(tunnel.Bulk, own)
	must(t, err)
	t.Cleanup(func() { _ = session.Close(tunnel.CodeNone, "") })
	s.awaitOnline(fake.id, 1)
	many := make([]tunnel.Announcement, 1000) // ten thousand do not fit a message
	for i := range many {
		many[i] = tunnel.Announcement{Resource: fmt.Sprint("r", i), Kind: "http", Healthy: true}
	}
	for name, list := range map[string][]tunnel.Announcement{
		"another's name":       {own, {Resource: "web", Kind: "http", Healthy: true}},
		"star":                 {own, {Resource: "*", Kind: "http", Healthy: true}},
		"zero-width":           {own, {Resource: "mine\u200b", Kind: "http", Healthy: true}},
		"path":                 {own, {Resource: "../web", Kind: "http", Healthy: true}},
		"its own as another":   {{Resource: "mine", Kind: "tcp", Healthy: true}},
		"a thousand":           many,
		"figures of no agent":  {{Resource: "mine", Kind: "http", Healthy: true, Capacity: -1}},
		"words for a terminal": {{Resource: "mine", Kind: "http", Reason: "\x1b[2J"}},
	} {
		var refused *tunnel.Refusal
		if err := session.Announce(within(t), list); !errors.As(err, &refused) {
			t.Errorf("%s: %v", name, err)
		}
		if n, offer := s.relay.agents.online("mine"); n != 1 || offer.Kind != "http" {
			t.Errorf("%s: its own is served by %d, %+v", name, n, offer)
		}
		if n, _ := s.relay.agents.online("web"); n != 1 {
			t.Errorf("%s: web is served by %d", name, n)
		}
		r, err := c.Get("http://web/")
		must(t, err)
		r.Body.Close()
		if r.StatusCode != 200 {
			t.Errorf("%s: live traffic: %s", name, r.Status)
		}
	}
	must(t, session.ReportLoad([]tunnel.Load{{Resource: "web", Running: 1 << 40}, {Resource: "mine", Running: 1 << 40, Queued: -7}}))
	eventually(t, "its own load is bounded", func() bool {
		state, _ := s.relay.agents.state("mine")
		return state.Running == 1<<20 && state.Queued == 0
	})
	if state, _ := s.relay.agents.state("web"); state.Running > 8 {
		t.Errorf("it said how busy others are: %+v", state)
	}
}

// TestAG11HostileAgentHarmsItsOwnResourceAlone.
func TestAG11HostileAgentHarmsItsOwnResourceAlone(t *testing.T) {
	s, good := newWeb(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "genuine") })
	fake := s.enrolFake(false, served{"bad", "http", ""})
	answers := map[string]string{
		"/switch": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
		"/head":   "HTTP/1.1 200 OK\r\nX-Fill: " + strings.Repeat("y", 2*maxAnswerHead),
		"/noHTTP": "<script>alert(1)</script>",
		"/twice":  "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
	}
	session := fake.serve(tunnel.Bulk, func(_ context.Context, st *tunnel.Stream, h tunnel.Header) {
		readRequest(st)
		_ = st.WriteReply(tunnel.Reply{OK: true}, []byte(answers[h.Path]))
		_ = st.CloseWrite()
		<-st.Done()
	}, tunnel.Announcement{Resource: "bad", Kind: "http", Healthy: true})
	c := client(t, s.user(nil).open(tunnel.Bulk), tunnel.Header{Resource: "bad"})
	for path := range answers {
		r, err := c.Get("http://bad" + path)
		must(t, err)
		r.Body.Close()
		if r.StatusCode != http.StatusBadGateway {
			t.Errorf("%s: %s", path, r.Status)
		}
		if r, err = good.Get("http://web/"); err != nil || r.StatusCode != 200 {
			t.Fatalf("%s: others: %v, %v", path, r, err)
		}
		r.Body.Close()
	}
	for _, h := range []tunnel.Header{{Resource: "web"}, {Service: "api"}, {Resource: "bad", Kind: "http"}} {
		st, err := session.Open(within(t), h, nil)
		must(t, err)
		if reply, err := st.ReadReply(within(t)); err == nil && reply.OK {
			t.Errorf("an agent opened %+v", h)
		}
	}
}
