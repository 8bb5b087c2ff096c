package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"iap/internal/audit"
	"iap/internal/dev"
)

// bearing is a program that brings its token in a file.
func (s *system) bearing(token string) *user {
	s.t.Helper()
	file, err := os.CreateTemp(s.dir, "token-")
	if err == nil {
		_, err = file.WriteString(token + "\n")
	}
	if err != nil {
		s.t.Fatal(err)
	}
	file.Close()
	return s.user("program", "IAP_RELAY="+s.name, "IAP_TOKEN_FILE="+file.Name())
}

func TestForgedAndStaleTokensAreRefusedWithTheirReason(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	p := s.provider
	past := time.Now().Add(-time.Hour)
	foreign, err := dev.NewSigningKey("ES256")
	if err != nil {
		t.Fatal(err)
	}
	for reason, tokens := range map[string][]string{
		"token_expired":     {p.Mint(map[string]any{"iat": past.Unix(), "exp": past.Add(time.Minute).Unix()})},
		"audience_mismatch": {p.Mint(map[string]any{"aud": "somebody-else"})},
		"claims_invalid":    {p.Mint(map[string]any{"aud": nil})},
		"issuer_unknown":    {p.Mint(map[string]any{"iss": "https://id.example.com"})},
		"algorithm_refused": {
			p.Mint(nil, dev.MintOptions{Header: map[string]any{"alg": "none"}}),
			p.Mint(nil, dev.MintOptions{Header: map[string]any{"alg": "HS256"}, Secret: p.PublicKeyPEM()}),
		},
		"signature_invalid": {p.Mint(nil, dev.MintOptions{Key: foreign})},
		"token_malformed":   {p.Mint(nil, dev.MintOptions{Header: map[string]any{"alg": "none"}, Unsigned: true})},
	} {
		for i, token := range tokens {
			message := s.bearing(token).fails(4, "token_invalid", "whoami", "--ca-file", s.ca)
			if !strings.Contains(message, reason) {
				t.Errorf("message %q of token %d does not say %s", message, i, reason)
			}
		}
	}
	s.awaitRecord("a refusal with its reason", func(e audit.Event) bool { // the first few of a source are told in full
		return e.Kind == audit.KindLogin && e.Decision == audit.Deny && e.Reason != "" && e.Source == "127.0.0.1" && e.Principal == ""
	})
	s.bearing(p.Mint(map[string]any{"aud": "somebody-else"})).fails(4, "token_invalid", "connect", "phi3", "--ca-file", s.ca)
	var who struct{ Principal string }
	s.bearing(p.Mint(map[string]any{"jti": "honest"})).ok(&who, "whoami", "--ca-file", s.ca)
	if who.Principal != "dev/alice" {
		t.Errorf("an honest token is %+v", who)
	}
}

func TestTokenBelongsToTheKeyThatShowedItFirst(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	token := s.provider.Mint(map[string]any{"jti": "shared"})
	s.bearing(token).ok(nil, "whoami", "--ca-file", s.ca)
	s.bearing(token).fails(4, "pop_failed", "whoami", "--ca-file", s.ca)
	// The same claims in another spelling are the same token: what counts is the payload, not the file.
	respelled := strings.TrimRight(token, "\n") + "\n\n"
	s.bearing(respelled).fails(4, "pop_failed", "whoami", "--ca-file", s.ca)
	s.awaitRecord("the second key", func(e audit.Event) bool {
		return e.Kind == audit.KindLogin && e.Decision == audit.Deny && e.Reason == "pop_failed"
	})
}

func TestID09FloodOfUnknownKeyIDsCausesNoFloodAtTheProvider(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{config: withFrontDoor})
	foreign, err := dev.NewSigningKey("ES256")
	if err != nil {
		t.Fatal(err)
	}
	before := s.provider.Hits(dev.EndpointKeys)
	for i := range 100 {
		token := s.provider.Mint(map[string]any{"aud": "iap-dev-api"}, dev.MintOptions{
			Key: foreign, Header: map[string]any{"kid": fmt.Sprint("unknown-", i)},
		})
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.listen+"/r/phi3/v1/models", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		answer, err := s.https.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusUnauthorized {
			t.Fatalf("a token under an unknown key: %s", answer.Status)
		}
	}
	s.bearing(s.provider.Mint(nil, dev.MintOptions{Key: foreign, Header: map[string]any{"kid": "unknown"}})).
		fails(4, "token_invalid", "whoami", "--ca-file", s.ca)
	if fetched := s.provider.Hits(dev.EndpointKeys) - before; fetched > 2 {
		t.Errorf("101 unknown key ids caused %d fetches of the keys", fetched)
	}
	s.bearing(s.provider.Mint(map[string]any{"jti": "honest"})).ok(nil, "whoami", "--ca-file", s.ca)
}

// withFrontDoor lets access tokens of the provider in at https://relay/r/RESOURCE/….
func withFrontDoor(relayYAML string) string {
	return strings.Replace(relayYAML, "    # bearer_audiences:", "    bearer_audiences: [iap-dev-api]\n    # bearer_audiences:", 1)
}

// accessToken is one for the front door.
func (s *system) accessToken(claims map[string]any) string {
	all := map[string]any{"aud": "iap-dev-api", "nonce": nil}
	for name, value := range claims {
		all[name] = value
	}
	return s.provider.Mint(all, dev.MintOptions{Header: map[string]any{"typ": "at+jwt"}})
}

// bearer sends one chat to the front door, as sub, and returns what came of the answer.
func (s *system) bearer(web *http.Client, sub, body string) (status int, answer []byte) {
	q, err := http.NewRequest(http.MethodPost, "https://"+s.listen+"/r/phi3/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		s.t.Error(err)
		return 0, nil
	}
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("Authorization", "Bearer "+s.accessToken(map[string]any{"sub": sub}))
	reply, err := web.Do(q)
	if err != nil {
		return 0, nil
	}
	defer reply.Body.Close()
	answer, _ = io.ReadAll(reply.Body) // what came before it broke counts
	return reply.StatusCode, answer
}

// credentialFiles are the files that hold secrets of a user.
func credentialFiles(u *user) []string {
	for _, kv := range u.env {
		if dir, ok := strings.CutPrefix(kv, "IAP_CONFIG_DIR="); ok {
			found, _ := filepath.Glob(filepath.Join(dir, "state", "profiles", "*", "credentials", "*")) // a fixed pattern is never bad
			return found
		}
	}
	return nil
}
