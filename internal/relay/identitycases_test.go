package relay

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"iap/auth"
	"iap/internal/audit"
	"iap/internal/dev"
	"iap/internal/relay/settings"
	"iap/tunnel"
)

// The sample cases of identity and tokens, against a whole relay over its own TLS. The ids are those of the threat model.

const caseGrants = `version: 1
grants:
  - name: engineers
    to: ["group:corp/ml-eng"]
    resources: [phi3]
    actions: [chat, list-models]
  - name: careful
    to: ["user:corp/careful"]
    resources: [phi3]
    actions: [chat]
    require: {mfa: true}
  - name: same-name
    to: ["user:corp/sam", "user:second/sam"]
    resources: [phi3]
    actions: [chat]
    limits: {requests: 1/1h}
`

// identityCases is the fixture of them all: a relay with two providers, a model that counts what reaches it, and alice.
type identityCases struct {
	*system
	second *dev.Provider
	model  *modelServer
	slow   *slowChat
	alice  *user
}

func newIdentityCases(t *testing.T) *identityCases {
	t.Helper()
	c := &identityCases{slow: newSlowChat()}
	c.model = newModelServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") == "text/event-stream" {
			c.slow.serve(w, r)
			return
		}
		completion(w, "hello")
	})
	var err error
	c.second, err = dev.StartProvider(context.Background(), dev.ProviderOptions{Algorithm: "ES256"})
	must(t, err)
	t.Cleanup(func() { c.second.Close() })
	c.system = newSystem(t, caseGrants, func(cfg *settings.Config) {
		second := cfg.Issuers[0]
		second.Name, second.URL = "second", c.second.Issuer()
		cfg.Issuers = append(cfg.Issuers, second)
	})
	c.startAgent(served{"phi3", "model", c.model.URL})
	c.alice = c.user(nil)
	return c
}

// refusal presents a token with a key in the tunnel and returns the code of the token's refusal, or else that of the session's.
func (c *identityCases) refusal(u *user, token string) string {
	c.t.Helper()
	session, err := u.present(tunnel.Interactive, token)
	if err == nil {
		_ = session.Close(tunnel.CodeNone, "")
		return "none"
	}
	if code := refusedWith(c.t, nil, err); code != tunnel.CodeTokenInvalid {
		return code.String()
	}
	return refusalCode(err)
}

// opensNothing shows a token at both doors, made for each, and demands the codes and a model that saw nothing.
func (c *identityCases) opensNothing(t *testing.T, mint func(aud string) string, codes ...string) {
	t.Helper()
	before := c.model.hits.Load()
	if got := c.refusal(c.user(nil), mint(c.provider.ClientID())); !slices.Contains(codes, got) {
		t.Errorf("the tunnel's refusal is %s, want %v", got, codes)
	}
	r, body := c.ask("/r/phi3/v1/models", "Authorization: Bearer "+mint(bearerAudience))
	if r.StatusCode != http.StatusUnauthorized {
		t.Errorf("the front door answers %s: %s", r.Status, body)
	}
	if n := c.model.hits.Load() - before; n != 0 {
		t.Errorf("the model saw %d requests", n)
	}
}

// minting makes tokens of the first provider that differ from an honest one.
func (c *identityCases) minting(changes map[string]any, o ...dev.MintOptions) func(string) string {
	return func(aud string) string {
		all := map[string]any{"aud": aud}
		for name, value := range changes {
			all[name] = value
		}
		return c.provider.Mint(all, o...)
	}
}

func TestIdentityCases(t *testing.T) {
	c := newIdentityCases(t)
	chatOK(t, client(t, c.alice.open(tunnel.Interactive), tunnel.Header{Resource: "phi3"}), chatBody("phi3", false)) // it works at all
	c.subtest("ID-17 a session copied to another machine without its key opens nothing", c.copiedSession)
	c.subtest("ID-17 a replayed handshake or stream header opens nothing", c.replayedHandshake)
	c.subtest("ID-17 another spelling of a bound token opens nothing", c.respelledToken)
	c.subtest("ID-01 a token that nobody signed", c.unsigned)
	c.subtest("ID-03 a token of another issuer", c.foreignIssuer)
	c.subtest("ID-05 a token of another time", c.otherTimes)
	c.subtest("ID-07 a subject or a name that can be read in two ways", c.oddClaims)
	c.subtest("a token with a foreign azp opens nothing", c.foreignParty)
	c.subtest("ID-13 one name at two providers is two principals", c.sameNames)
	c.subtest("ID-15 claims of another shape match nothing", c.shapes)
	c.subtest("ID-25 a claim that is gone at the refresh ends what rested on it", c.changedAtRefresh)
}

func (c *identityCases) unsigned(t *testing.T) {
	for _, alg := range []any{"none", "None", "nOnE", "NONE", "", nil, "HS256"} {
		c.opensNothing(t, c.minting(nil, dev.MintOptions{Header: map[string]any{"alg": alg}}), auth.CodeAlgorithmRefused)
		c.opensNothing(t, c.minting(nil, dev.MintOptions{Header: map[string]any{"alg": alg}, Unsigned: true}), auth.CodeTokenMalformed)
	}
	c.opensNothing(t, c.minting(nil, dev.MintOptions{Secret: c.provider.PublicKeyPEM()}), auth.CodeAlgorithmRefused)
	c.awaitEvent("a refusal", func(e audit.Event) bool {
		return e.Kind == audit.KindLogin && e.Decision == audit.Deny && e.Principal == ""
	})
}

func (c *identityCases) foreignIssuer(t *testing.T) {
	asked := c.second.Hits(dev.EndpointKeys)
	// The second provider signs for the first, under the first one's key id.
	c.opensNothing(t, func(aud string) string {
		return c.second.Mint(map[string]any{"iss": c.provider.Issuer(), "aud": aud}, dev.MintOptions{Header: map[string]any{"kid": c.provider.KeyID()}})
	}, auth.CodeSignatureInvalid)
	if n := c.second.Hits(dev.EndpointKeys) - asked; n != 0 {
		t.Errorf("the second provider's keys were asked for %d times", n)
	}
	iss := c.provider.Issuer()
	for _, spelling := range []any{iss + "/", strings.ToUpper(iss), strings.Replace(iss, "http", "https", 1), iss + "?", strings.TrimPrefix(iss, "http://"), strings.Replace(iss, "127.0.0.1", "localhost", 1), "", nil, []string{iss}} {
		c.opensNothing(t, c.minting(map[string]any{"iss": spelling}), auth.CodeIssuerUnknown)
	}
}

func (c *identityCases) otherTimes(t *testing.T) {
	now := time.Now().Unix()
	for name, changes := range map[string]map[string]any{
		"expired":              {"iat": now - 600, "exp": now - 31, "auth_time": nil},
		"not valid yet":        {"nbf": now + 45},
		"issued in ten years":  {"iat": now + 10*365*86400, "exp": now + 10*365*86400 + 300},
		"ten years long":       {"exp": now + 10*365*86400},
		"a text for a time":    {"exp": fmt.Sprint(now + 300)},
		"a fraction of a time": {"exp": float64(now) + 300.5},
		"a negative time":      {"exp": -1},
		"an absurd time":       {"exp": json.Number("1e300")},
		"no end":               {"exp": nil},
		"no beginning":         {"iat": nil},
		"auth_time a word":     {"auth_time": "now"},
		"auth_time to come":    {"auth_time": now + 3600},
		"auth_time negative":   {"auth_time": -1},
	} {
		t.Run(name, func(t *testing.T) {
			c.opensNothing(t, c.minting(changes), auth.CodeTokenExpired, auth.CodeTokenNotYetValid, auth.CodeTokenLifetime, auth.CodeClaimsInvalid, auth.CodeTokenMalformed)
		})
	}
}

func (c *identityCases) oddClaims(t *testing.T) {
	for _, sub := range []any{nil, "", strings.Repeat("a", 10<<10), "a\x00b", "a\nb", `a"b`, "alice ", []string{"alice"}} {
		c.opensNothing(t, c.minting(map[string]any{"sub": sub}), auth.CodeSubjectInvalid, auth.CodeTokenMalformed)
	}
	for _, twice := range []string{`"aud":"x",`, `"groups":["a"],`, `"sub":"root",`, `"s\u0075b":"root",`} {
		c.opensNothing(t, func(aud string) string {
			honest, err := base64.RawURLEncoding.DecodeString(strings.Split(c.provider.Mint(map[string]any{"aud": aud}), ".")[1])
			must(t, err)
			return c.provider.Mint(nil, dev.MintOptions{Payload: []byte("{" + twice + string(honest[1:]))})
		}, auth.CodeClaimsDuplicate)
	}
}

func (c *identityCases) foreignParty(t *testing.T) {
	for _, changes := range []map[string]any{
		{"azp": "another-client"},
		{"azp": ""},
		{"azp": []string{"iapctl"}},
		{"azp": 7},
		{"azp": "IAPCTL"},
		{"azp": "iapctl "},
		{"client_id": "another-client"},
		{"appid": "another-client"},
		{"cid": "another-client"},
		{"azp": nil, "client_id": "another-client"},
	} {
		c.opensNothing(t, c.minting(changes), auth.CodePartyMismatch)
	}
	both := []string{c.provider.ClientID(), bearerAudience}
	c.opensNothing(t, c.minting(map[string]any{"aud": both, "azp": "another-client"}), auth.CodeAudienceMismatch)
	c.opensNothing(t, c.minting(map[string]any{"aud": append(both, "elsewhere")}), auth.CodeAudienceMismatch)
}

// sameNames gives one person's name and address to two: budgets, rates and grants are each one's own.
func (c *identityCases) sameNames(t *testing.T) {
	claims := map[string]any{"sub": "sam", "email": "sam@example.test", "email_verified": true, "groups": []string{"ml-eng"}}
	first, second := c.user(claims), c.user(nil)
	one := client(t, first.open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	session, err := second.present(tunnel.Interactive, c.second.Mint(claims))
	must(t, err)
	t.Cleanup(func() { _ = session.Close(tunnel.CodeNone, "") })
	two := client(t, session, tunnel.Header{Resource: "phi3"})
	status := func(h *http.Client) int {
		r, err := postChat(h, chatBody("phi3", false))
		must(t, err)
		defer r.Body.Close()
		_, _ = io.Copy(io.Discard, r.Body)
		return r.StatusCode
	}
	// The first comes by its group, which the second's provider only calls by the same name; the second by its one request an hour.
	for i, want := range []int{200, 429} {
		if got := status(two); got != want {
			t.Errorf("request %d of the second: %d", i+1, got)
		}
	}
	for range 3 {
		if got := status(one); got != 200 {
			t.Errorf("the first pays for the second: %d", got)
		}
	}
	who, err := api(t, session).Whoami(within(t))
	must(t, err)
	if who.Principal != "second/sam" {
		t.Errorf("the second is %s", who.Principal)
	}
}

func (c *identityCases) shapes(t *testing.T) {
	before := c.model.hits.Load()
	for name, test := range map[string]struct {
		changes map[string]any
		reason  string
	}{
		"groups in one text":  {map[string]any{"groups": "llm-users,ml-eng"}, "groups_unknown"},
		"the group as a text": {map[string]any{"groups": "ml-eng"}, "groups_unknown"},
		"an object":           {map[string]any{"groups": map[string]any{"ml-eng": true}}, "groups_unknown"},
		"a number and null":   {map[string]any{"groups": []any{1, nil}}, "groups_unknown"},
		"null among them":     {map[string]any{"groups": []any{"ml-eng", nil}}, "groups_unknown"},
		"a referenced claim":  {map[string]any{"groups": nil, "_claim_names": map[string]any{"groups": "src1"}, "_claim_sources": map[string]any{"src1": map[string]any{"endpoint": "https://graph.example/groups"}}}, "groups_unknown"},
		"a longer name":       {map[string]any{"groups": []string{"ml-eng2", "xml-eng", "ML-ENG", "ml-eng "}}, "no_grant"},
		"amr in one text":     {map[string]any{"sub": "careful", "groups": nil, "amr": "mfa"}, "mfa_required"},
		"amr with a number":   {map[string]any{"sub": "careful", "groups": nil, "amr": []any{"mfa", 1}}, "mfa_required"},
	} {
		session := c.user(test.changes).open(tunnel.Interactive)
		if got := reasonOf(t, session); got != test.reason {
			t.Errorf("%s: %s, want %s", name, got, test.reason)
		}
		if r, err := postChat(client(t, session, tunnel.Header{Resource: "phi3"}), chatBody("phi3", false)); err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				t.Errorf("%s: it chats", name)
			}
		}
	}
	if n := c.model.hits.Load() - before; n != 0 {
		t.Errorf("the model saw %d requests", n)
	}
}

// changedAtRefresh takes the group away while an answer runs.
func (c *identityCases) changedAtRefresh(t *testing.T) {
	u := c.user(map[string]any{"sub": "leaver"})
	session := u.open(tunnel.Interactive)
	q, err := http.NewRequest("POST", "http://phi3/v1/chat/completions", strings.NewReader(chatBody("phi3", true)))
	must(t, err)
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("Accept", "text/event-stream")
	r, err := client(t, session, tunnel.Header{Resource: "phi3"}).Do(q)
	must(t, err)
	defer r.Body.Close()
	<-c.slow.begun
	u.claims["groups"] = []string{"alumni"}
	_, err = session.Refresh(within(t), u.token())
	must(t, err)
	text, _ := io.ReadAll(r.Body)
	if !strings.Contains(string(text), "policy_changed") && !strings.Contains(string(text), "no_grant") {
		t.Errorf("the answer ended with %s", text)
	}
	<-c.slow.ended
	if got := reasonOf(t, session); got != "no_grant" {
		t.Errorf("the next request would be judged %s", got)
	}
}
