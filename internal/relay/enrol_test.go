package relay

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/agent"
	"iap/internal/audit"
)

func (s *system) parsedToken(share bool, resources ...served) auth.JoinToken {
	s.t.Helper()
	token, err := auth.ParseJoinToken(s.joinToken(share, resources...).Token)
	must(s.t, err)
	return token
}

func TestAG01EveryBadJoinGetsTheSameAnswer(t *testing.T) {
	var ahead atomic.Int64
	s := prepareSystem(t, allowAll)
	s.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	s.start()
	used, good := s.parsedToken(true, served{"a", "http", ""}), s.parsedToken(true, served{"b", "http", ""})
	_, _, err := s.postJoin(used)
	must(t, err)
	expired := s.parsedToken(true, served{"c", "http", ""})
	unknown, wrong := good, good
	unknown.ID = "join-000000000000000000000000"
	wrong.Secret = bytes.Repeat([]byte{7}, 32)
	odd := good
	odd.ID = "../agent/x"
	key := newKey(t)
	requests := map[string]admin.JoinRequest{
		"used": joinRequest(used, key), "unknown": joinRequest(unknown, key), "wrong secret": joinRequest(wrong, key), "odd id": joinRequest(odd, key),
	}
	tampered := joinRequest(good, key)
	tampered.Signature[3] ^= 1
	requests["tampered signature"] = tampered
	foreign := joinRequest(good, key)
	foreign.PublicKey = newKey(t).Public().(ed25519.PublicKey)
	requests["somebody else's key"] = foreign
	other := good
	other.Relay = "other.example.com"
	requests["made for another relay"] = joinRequest(other, key)
	short := joinRequest(good, key)
	short.PublicKey = short.PublicKey[:31]
	requests["short key"] = short
	answers := map[string]string{}
	for name, q := range requests {
		answers[name] = rawJoin(t, s, q)
	}
	ahead.Store(int64(defaultJoinLife + time.Minute))
	answers["expired"] = rawJoin(t, s, joinRequest(expired, key))
	for name, answer := range answers {
		if answer != answers["used"] || !strings.HasPrefix(answer, "403 ") {
			t.Errorf("%s: %s\nused: %s", name, answer, answers["used"])
		}
	}
	ahead.Store(0)
	if _, _, err := s.postJoin(good); err != nil {
		t.Errorf("after all that the good token is spoilt: %v", err)
	}
	denied := s.events(func(e audit.Event) bool { return e.Kind == audit.KindAgent && e.Decision == audit.Deny })
	if len(denied) == 0 {
		t.Error("refused enrolments left no record")
	}
}

// rawJoin is the whole answer to a join, but for its date.
func rawJoin(t *testing.T, s *system, q admin.JoinRequest) string {
	t.Helper()
	data, err := json.Marshal(q)
	must(t, err)
	transport := &http.Transport{TLSClientConfig: s.tls()}
	defer transport.CloseIdleConnections()
	r, err := (&http.Client{Transport: transport, Timeout: patience}).Post("https://"+s.name+admin.JoinPath, "application/json", bytes.NewReader(data))
	must(t, err)
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	must(t, err)
	return r.Status + " " + string(body)
}

func TestAG01OfManyRacingJoinsOneWins(t *testing.T) {
	s := newSystem(t, allowAll)
	token := s.parsedToken(false, served{"web", "http", ""})
	var wins atomic.Int64
	var racing sync.WaitGroup
	for range 50 {
		racing.Go(func() {
			_, _, err := s.postJoin(token)
			var refused *admin.Error
			switch {
			case err == nil:
				wins.Add(1)
			case !errors.As(err, &refused) || refused.Code != "join_refused":
				t.Errorf("a loser got %v", err)
			}
		})
	}
	racing.Wait()
	if wins.Load() != 1 {
		t.Errorf("%d joins won", wins.Load())
	}
	agents, err := s.admin.Agents(within(t))
	must(t, err)
	if len(agents) != 1 {
		t.Errorf("%d agents are enrolled", len(agents))
	}
}

func TestAG05ResourceThatIsServedNeedsAShareToken(t *testing.T) {
	s := newSystem(t, allowAll)
	early := s.parsedToken(false, served{"web", "http", ""}) // made before anybody served it
	s.enrolFake(false, served{"web", "http", ""})
	_, err := s.admin.CreateJoinToken(within(t), admin.NewJoinToken{Name: "b", Resources: []admin.JoinResource{{Name: "web", Kind: "http"}}})
	var refused *admin.Error
	if !errors.As(err, &refused) || refused.Code != "resource_taken" || refused.Status != http.StatusConflict {
		t.Errorf("a token for a served name: %v", err)
	}
	if _, _, err := s.postJoin(early); err == nil {
		t.Error("an early token took over a served name")
	}
	_, err = s.admin.CreateJoinToken(within(t), admin.NewJoinToken{Name: "b", Share: true, Resources: []admin.JoinResource{{Name: "web", Kind: "tcp"}}})
	if !errors.As(err, &refused) || !strings.Contains(refused.Hint, "--resource web=http --share") {
		t.Errorf("agents of one name may differ in kind, or nobody is told how they are: %v", err)
	}
	s.enrolFake(true, served{"web", "http", ""})
}

func TestOfTwoTokensForOneNameRacingOneWins(t *testing.T) {
	s := newSystem(t, allowAll)
	for range 10 {
		name := strings.ToLower("r" + rawName())
		var wins atomic.Int64
		var racing sync.WaitGroup
		var tokens []auth.JoinToken
		for range 8 {
			tokens = append(tokens, s.parsedToken(false, served{name, "http", ""}))
		}
		for _, token := range tokens {
			racing.Go(func() {
				if _, _, err := s.postJoin(token); err == nil {
					wins.Add(1)
				}
			})
		}
		racing.Wait()
		if wins.Load() != 1 {
			t.Fatalf("%d agents took the name %s, none of them with a share token", wins.Load(), name)
		}
	}
}

func rawName() string { return newID("")[1:9] }

func TestJoinTokenRequestsAreChecked(t *testing.T) {
	s := newSystem(t, allowAll)
	web := []admin.JoinResource{{Name: "web", Kind: "http"}}
	many := make([]admin.JoinResource, maxJoinResources+1)
	for i := range many {
		many[i] = admin.JoinResource{Name: "r" + strings.Repeat("x", i%60) + newID("")[1:5], Kind: "http"}
	}
	for what, q := range map[string]admin.NewJoinToken{
		"no name":         {Resources: web},
		"bad name":        {Name: "a b", Resources: web},
		"no resource":     {Name: "a"},
		"many resources":  {Name: "a", Resources: many},
		"twice":           {Name: "a", Resources: append(web, web...)},
		"bad kind":        {Name: "a", Resources: []admin.JoinResource{{Name: "web", Kind: "udp"}}},
		"star":            {Name: "a", Resources: []admin.JoinResource{{Name: "*", Kind: "http"}}},
		"path":            {Name: "a", Resources: []admin.JoinResource{{Name: "../x", Kind: "http"}}},
		"control":         {Name: "a", Resources: []admin.JoinResource{{Name: "x\n", Kind: "http"}}},
		"trailing dash":   {Name: "a", Resources: []admin.JoinResource{{Name: "x-", Kind: "http"}}},
		"label":           {Name: "a", Resources: []admin.JoinResource{{Name: "x", Kind: "http", Labels: map[string]string{"e\n": "x"}}}},
		"label value":     {Name: "a", Resources: []admin.JoinResource{{Name: "x", Kind: "http", Labels: map[string]string{"e": "x\x1b"}}}},
		"ttl":             {Name: "a", Resources: web, TTL: "soon"},
		"negative ttl":    {Name: "a", Resources: web, TTL: "-1m"},
		"ttl of a decade": {Name: "a", Resources: web, TTL: "87600h"},
	} {
		_, err := s.admin.CreateJoinToken(within(t), q)
		var refused *admin.Error
		if !errors.As(err, &refused) || refused.Status != http.StatusBadRequest || refused.Code != "bad_request" || refused.Message == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestJoinAgainstAnotherRelayLeavesNothingBehind(t *testing.T) {
	s := newSystem(t, allowAll)
	token := s.parsedToken(false, served{"web", "http", ""})
	token.RelayKeyHash = auth.KeyHash(newKey(t).Public().(ed25519.PublicKey)) // the relay that made it had another key
	dir := filepath.Join(s.dir, "stray")
	_, err := agent.Join(within(t), agent.JoinOptions{Token: token.Encode(), Config: filepath.Join(dir, "agent.yaml"), CAFile: s.caFile})
	if err == nil || !strings.Contains(err.Error(), "could not prove") {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestJoinOverwritesNothing(t *testing.T) {
	s := newSystem(t, allowAll)
	for _, name := range []string{"agent.yaml", "agent.key"} {
		token := s.joinToken(true, served{"web", "http", ""}).Token
		file := filepath.Join(s.dir, "join-"+name, "agent.yaml")
		existing := filepath.Join(filepath.Dir(file), name)
		must(t, os.MkdirAll(filepath.Dir(file), 0o700))
		must(t, os.WriteFile(existing, []byte("mine"), 0o600))
		o := agent.JoinOptions{Token: token, Config: file, CAFile: s.caFile}
		if _, err := agent.Join(within(t), o); err == nil || !strings.Contains(err.Error(), "exists already") {
			t.Errorf("%s: %v", name, err)
		}
		if data, err := os.ReadFile(existing); err != nil || string(data) != "mine" {
			t.Errorf("%s was overwritten: %q, %v", name, data, err)
		}
		must(t, os.Remove(existing))
		joined, err := agent.Join(within(t), o) // the token is not spent
		must(t, err)
		if info, err := os.Stat(filepath.Join(filepath.Dir(file), "agent.key")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("key file: %v, %v", info, err)
		}
		if joined.AgentID == "" || len(joined.Missing) != 1 {
			t.Errorf("joined %+v", joined)
		}
	}
}

func TestJoinAcceptsOnlyItsOwnJSON(t *testing.T) {
	s := newSystem(t, allowAll)
	transport := &http.Transport{TLSClientConfig: s.tls()}
	defer transport.CloseIdleConnections()
	hc := &http.Client{Transport: transport, Timeout: patience}
	for _, body := range []string{"", "{", `{"token_id":"x","surprise":1}`, `{"token_id":"x"} {}`, strings.Repeat(" ", 2<<20) + "{}", `{"secret":7}`} {
		r, err := hc.Post("https://"+s.name+admin.JoinPath, "application/json", strings.NewReader(body))
		must(t, err)
		r.Body.Close()
		if r.StatusCode != http.StatusBadRequest {
			t.Errorf("%.30q: %s", body, r.Status)
		}
	}
	r, err := hc.Get("https://" + s.name + admin.JoinPath)
	must(t, err)
	r.Body.Close()
	if r.StatusCode < 400 {
		t.Errorf("GET: %s", r.Status)
	}
}
