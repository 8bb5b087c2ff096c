package auth

import (
	"encoding/base64"
	"reflect"
	"strings"
	"testing"
	"time"
)

// A stranger reaches the token parser before any signature is checked.
func FuzzParseCompact(f *testing.F) {
	p := newProvider(f, "https://idp.test")
	good := p.mint(map[string]any{"groups": []string{"a"}, "org": map[string]any{"x": []any{1, nil, "y"}}, "_claim_names": map[string]any{"groups": "s"}})
	for _, seed := range []string{good, good + "=", "", "..", "a.b.c", encode(`{"alg":"none"}`) + "." + encode(`{"iss":1}`) + ".AA", encode(`{"alg":"ES256","crit":[]}`) + "." + encode(`{"aud":[1]}`) + ".AA"} {
		f.Add(seed)
	}
	config := p.issuerConfig()
	config.Claims = map[string]string{"x": "/org/x/2", "y": "/a~1b", "z": "/groups"}
	i, err := compileIssuer(config)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		token, refused := parseCompact(raw)
		if refused != nil {
			return
		}
		if token.header.algorithm == "" {
			t.Error("a token without algorithm was read")
		}
		parts := strings.Split(raw, ".")
		if base64.RawURLEncoding.EncodeToString(token.payload) != parts[1] {
			t.Error("two spellings of one payload")
		}
		// What would follow a signature that holds must not fall over either.
		_ = i.checkHeader(token.header)
		if out, refused := i.token(token, UseTunnel, testNow); refused == nil {
			if !checkSubject(out.Principal.Subject) || out.Principal.Issuer != "corp" {
				t.Errorf("principal %+v", out.Principal)
			}
		}
	})
}

func FuzzParseJoinToken(f *testing.F) {
	f.Add(joinToken().Encode())
	f.Add("iapjoin1." + encode(`{"relay":"a"}`))
	f.Add("iapjoin1.")
	f.Fuzz(func(t *testing.T, text string) {
		j, err := ParseJoinToken(text)
		if err != nil {
			return
		}
		again, err := ParseJoinToken(j.Encode())
		if err != nil || !reflect.DeepEqual(again, j) {
			t.Errorf("%+v became %+v: %v", j, again, err)
		}
	})
}

func FuzzParseKeySet(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},{"kty":"oct","k":"AA"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","x5c":["AA"]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseKeySet(data)
		if err == nil && (len(keys) == 0 || len(keys) > maxKeys) {
			t.Errorf("%d keys", len(keys))
		}
	})
}

func FuzzSplitCommand(f *testing.F) {
	f.Add(`a 'b c' "d\"e" \f`)
	f.Fuzz(func(t *testing.T, line string) {
		if words, err := splitCommand(line); err == nil && (len(words) == 0 || words[0] == "") {
			t.Errorf("%q has no command", line)
		}
	})
}

func FuzzLogoutClaims(f *testing.F) {
	f.Add([]byte(`{"iss":"https://idp.test","aud":"iapctl","iat":1800000000,"exp":1800000060,"jti":"j","sid":"s","events":{"` + logoutEvent + `":{}}}`))
	f.Add([]byte(`{"aud":["iapctl",""],"iat":1e9,"exp":1800000060,"jti":1,"sub":"","events":{"` + logoutEvent + `":null}}`))
	i := &issuer{IssuerConfig: IssuerConfig{Name: "corp", URL: "https://idp.test", ClientID: "iapctl"}}
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, refused := parseObject("payload", payload)
		if refused != nil || i.ofLogout(c) == nil || checkLogoutKind(c) != nil || checkLogoutTimes(c, now) != nil {
			return
		}
		l, refused := i.logout(c)
		if refused == nil && (l.Subject == "" && l.SessionID == "" || l.ID == "" || c.has("nonce") || now.Sub(l.IssuedAt).Abs() > logoutAge+clockSkew) {
			t.Errorf("%s was read as %+v", payload, l)
		}
	})
}
