package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestVerifyReadsPrincipal(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	c := p.issuerConfig()
	c.Claims = map[string]string{"repo": "/repository_id", "team": "/org/teams", "first": "/org/teams/0", "flag": "/flag", "deep": "/a~1b/m~0n", "obj": "/org"}
	v := newVerifier(t, c)
	raw := p.mint(map[string]any{
		"groups": []string{"ml-eng", "llm users"}, "email": "ada@example.com", "email_verified": true, "name": "Ada\x1b[2J Lovelace",
		"repository_id": 1234, "org": map[string]any{"teams": []any{"a", 7, true}}, "flag": false, "a/b": map[string]any{"m~n": "x"},
		"amr": []string{"pwd", "otp"}, "auth_time": time.Now().Unix() - 5, "nonce": "n", "sid": "s", "acr": "1",
	})
	got, err := v.Verify(t.Context(), raw, UseTunnel)
	if err != nil {
		t.Fatal(err)
	}
	pr := got.Principal
	if pr.ID() != "corp/8a7f3c" || pr.IssuerURL != p.issuer || !slices.Equal(pr.Groups, []string{"ml-eng", "llm users"}) || pr.GroupsUnknown {
		t.Errorf("principal %+v", pr)
	}
	if pr.DisplayName != "Ada[2J Lovelace" || pr.Email != "ada@example.com" || !pr.EmailVerified {
		t.Errorf("display %+v", pr)
	}
	want := map[string][]string{"repo": {"1234"}, "team": {"a", "7", "true"}, "first": {"a"}, "flag": {"false"}, "deep": {"x"}}
	if !reflect.DeepEqual(pr.Claims, want) {
		t.Errorf("claims %v, want %v", pr.Claims, want)
	}
	if pr.MFA != (MFA{true, MFASourceAMR}) || pr.AuthTime.IsZero() || got.Nonce != "n" || got.SessionID != "s" || pr.ACR != "1" {
		t.Errorf("token %+v", got)
	}
	payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1])
	if got.PayloadHash != sha256.Sum256(payload) {
		t.Error("payload hash is not that of the decoded payload")
	}
}

func TestVerifyAcceptsEachAllowedAlgorithm(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	_, ed, _ := ed25519.GenerateKey(nil)
	p.keys = append(p.keys, testKey{"rsa", "RS256", sharedRSA()}, testKey{"ed", "EdDSA", ed})
	v := newVerifier(t, p.issuerConfig())
	payload := payloadOf(p.mint(nil))
	for _, k := range p.keys {
		if _, err := v.Verify(t.Context(), sign(t, k, fmt.Sprintf(`{"alg":%q,"kid":%q}`, k.alg, k.id), payload), UseTunnel); err != nil {
			t.Errorf("%s: %v", k.alg, err)
		}
	}
	c := p.issuerConfig()
	c.Algorithms = []string{"RS256"}
	_, err := newVerifier(t, c).Verify(t.Context(), p.mint(nil), UseTunnel)
	wantCode(t, err, CodeAlgorithmRefused)
}

func payloadOf(raw string) string {
	payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1])
	return string(payload)
}

// ID-01 and the confusion of a public key with an HMAC secret.
func TestID01VerifyRefusesUnsignedAndSymmetricTokens(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	rsaKey := testKey{"k1", "RS256", sharedRSA()}
	p.keys = []testKey{rsaKey}
	v := newVerifier(t, p.issuerConfig())
	good := p.mint(nil)
	payload := payloadOf(good)
	if _, err := v.Verify(t.Context(), good, UseTunnel); err != nil {
		t.Fatal(err)
	}
	for _, alg := range []string{"none", "None", "nOnE", "NONE", "", "RS255", "ES256K"} {
		_, err := v.Verify(t.Context(), sign(t, rsaKey, fmt.Sprintf(`{"alg":%q,"kid":"k1"}`, alg), payload), UseTunnel)
		wantCode(t, err, CodeAlgorithmRefused)
		_, err = v.Verify(t.Context(), encode(fmt.Sprintf(`{"alg":%q}`, alg))+"."+encode(payload)+".", UseTunnel)
		wantCode(t, err, CodeTokenMalformed)
	}
	_, err := v.Verify(t.Context(), sign(t, rsaKey, `{"kid":"k1"}`, payload), UseTunnel)
	wantCode(t, err, CodeAlgorithmRefused)

	der, _ := x509.MarshalPKIXPublicKey(rsaKey.signer.Public())
	for _, secret := range [][]byte{der, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})} {
		input := encode(`{"alg":"HS256","kid":"k1"}`) + "." + encode(payload)
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(input))
		_, err := v.Verify(t.Context(), input+"."+base64.RawURLEncoding.EncodeToString(mac.Sum(nil)), UseTunnel)
		wantCode(t, err, CodeAlgorithmRefused)
	}
}

func TestVerifyRefusesForeignSignatures(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	v := newVerifier(t, p.issuerConfig())
	good := p.mint(nil)
	parts := strings.Split(good, ".")
	stranger := newECKey(t, "k1")
	embedded, _ := json.Marshal(keySetOf(stranger).Keys[0])
	for name, raw := range map[string]string{
		"another key with this id": sign(t, stranger, `{"alg":"ES256","kid":"k1"}`, payloadOf(good)),
		"its own key in jwk":       sign(t, stranger, `{"alg":"ES256","kid":"k1","jwk":`+string(embedded)+`}`, payloadOf(good)),
		"changed payload":          parts[0] + "." + encode(strings.Replace(payloadOf(good), "8a7f3c", "root00", 1)) + "." + parts[2],
		"changed header":           encode(`{"alg":"ES256","kid":"k1","typ":"JWT","x":1}`) + "." + parts[1] + "." + parts[2],
		"short signature":          parts[0] + "." + parts[1] + "." + parts[2][:8],
		"no key id, another key":   sign(t, stranger, `{"alg":"ES256"}`, payloadOf(good)),
	} {
		_, err := v.Verify(t.Context(), raw, UseTunnel)
		if refused, ok := err.(*TokenError); !ok || refused.Code != CodeSignatureInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := v.Verify(t.Context(), sign(t, p.keys[0], `{"alg":"ES256"}`, payloadOf(good)), UseTunnel); err != nil {
		t.Errorf("no key id, the right key: %v", err)
	}
}

// ID-03 and ID-13.
func TestID03VerifyComparesIssuersExactly(t *testing.T) {
	one, two := newProvider(t, "https://idp.test"), newProvider(t, "https://idp2.test")
	second := two.issuerConfig()
	second.Name = "second"
	v := newVerifier(t, one.issuerConfig(), second)
	_, err := v.Verify(t.Context(), sign(t, two.keys[0], `{"alg":"ES256","kid":"k1"}`, payloadOf(one.mint(nil))), UseTunnel)
	wantCode(t, err, CodeSignatureInvalid)
	for _, iss := range []any{"https://idp.test/", "https://IDP.test", "http://idp.test", "https://idp.test:443", "idp.test", "", nil, 7, []string{"https://idp.test"}} {
		_, err := v.Verify(t.Context(), one.mint(map[string]any{"iss": iss}), UseTunnel)
		wantCode(t, err, CodeIssuerUnknown)
	}
	same := map[string]any{"email": "ada@example.com"}
	a, err1 := v.Verify(t.Context(), one.mint(same), UseTunnel)
	b, err2 := v.Verify(t.Context(), two.mint(same), UseTunnel)
	if err1 != nil || err2 != nil || a.Principal.ID() == b.Principal.ID() {
		t.Errorf("same subject of two issuers: %v %v %v %v", a, b, err1, err2)
	}
}

// ID-05.
func TestID05VerifyHoldsTimesAgainstItsClock(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	c := p.issuerConfig()
	c.MaxTokenAge = time.Hour
	now := time.Now().Unix()
	v, err := NewVerifier(t.Context(), []IssuerConfig{c}, VerifierOptions{Now: func() time.Time { return time.Unix(now, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	for _, test := range []struct {
		changes map[string]any
		code    string
	}{
		{map[string]any{"exp": now - 29}, "claims_invalid"}, // before iat
		{map[string]any{"exp": now - 29, "iat": now - 100}, ""},
		{map[string]any{"exp": now - 30, "iat": now - 100}, CodeTokenExpired},
		{map[string]any{"exp": now - 31, "iat": now - 100}, CodeTokenExpired},
		{map[string]any{"nbf": now + 30}, ""},
		{map[string]any{"nbf": now + 31}, CodeTokenNotYetValid},
		{map[string]any{"iat": now + 30}, ""},
		{map[string]any{"iat": now + 31}, CodeTokenNotYetValid},
		{map[string]any{"iat": now + 10*365*86400, "exp": now + 11*365*86400}, CodeTokenNotYetValid},
		{map[string]any{"exp": now + 10*365*86400}, CodeTokenLifetime},
		{map[string]any{"exp": now + 86400}, ""},
		{map[string]any{"exp": now + 86401}, CodeTokenLifetime},
		{map[string]any{"iat": now - 3600}, ""},
		{map[string]any{"iat": now - 3631}, CodeTokenTooOld},
		{map[string]any{"exp": fmt.Sprint(now + 300)}, CodeClaimsInvalid},
		{map[string]any{"exp": float64(now) + 300.5}, CodeClaimsInvalid},
		{map[string]any{"exp": json.Number(fmt.Sprint(now+300) + ".0")}, CodeClaimsInvalid},
		{map[string]any{"exp": json.Number("1e300")}, CodeClaimsInvalid},
		{map[string]any{"exp": json.Number("99999999999999999999999")}, CodeClaimsInvalid},
		{map[string]any{"exp": -1}, CodeClaimsInvalid},
		{map[string]any{"exp": 0}, CodeClaimsInvalid},
		{map[string]any{"exp": nil}, CodeClaimsInvalid},
		{map[string]any{"exp": []int64{now + 300}}, CodeClaimsInvalid},
		{map[string]any{"exp": true}, CodeClaimsInvalid},
		{map[string]any{"iat": nil}, CodeClaimsInvalid},
		{map[string]any{"iat": "now"}, CodeClaimsInvalid},
		{map[string]any{"nbf": "now"}, CodeClaimsInvalid},
		{map[string]any{"nbf": json.Number("1.5e9")}, CodeClaimsInvalid},
		{map[string]any{"auth_time": "now"}, CodeClaimsInvalid},
		{map[string]any{"auth_time": -1}, CodeClaimsInvalid},
		{map[string]any{"auth_time": now + 3600}, CodeClaimsInvalid},
		{map[string]any{"auth_time": json.Number("1700000000.5")}, CodeClaimsInvalid},
		{map[string]any{"auth_time": now - 60}, ""},
	} {
		base := map[string]any{"iat": now, "exp": now + 300}
		for name, value := range test.changes {
			base[name] = value
		}
		_, err := v.Verify(t.Context(), p.mint(base), UseTunnel)
		if test.code == "" && err != nil {
			t.Errorf("%v: %v", test.changes, err)
		} else if test.code != "" {
			// go-oidc reads times too and may be the first to refuse their shape.
			if refused, ok := err.(*TokenError); !ok || (refused.Code != test.code && refused.Code != CodeTokenMalformed) || (refused.Code == CodeTokenMalformed && test.code != CodeClaimsInvalid) {
				t.Errorf("%v: %v, want %s", test.changes, err, test.code)
			}
		}
	}
}

// ID-07.
func TestID07VerifyRefusesOddSubjects(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	v := newVerifier(t, p.issuerConfig())
	for _, sub := range []any{nil, "", strings.Repeat("a", 256), strings.Repeat("a", 10<<10), "a\x00b", "a\nb", `a"b`, "a\u200bb", "a\u202eb", "a\u2028b", "ada ", " ada", "ada\u00a0", 7, []string{"a"}} {
		_, err := v.Verify(t.Context(), p.mint(map[string]any{"sub": sub}), UseTunnel)
		refused, ok := err.(*TokenError)
		if !ok || (refused.Code != CodeSubjectInvalid && refused.Code != CodeTokenMalformed) {
			t.Errorf("sub %.20q: %v", sub, err)
		}
	}
	for _, sub := range []string{"a", strings.Repeat("a", 255), "repo:o/r:ref:refs/heads/größe", `CORP\ada`, "auth0|1 2"} {
		if _, err := v.Verify(t.Context(), p.mint(map[string]any{"sub": sub}), UseTunnel); err != nil {
			t.Errorf("sub %.20q: %v", sub, err)
		}
	}
}

// ID-07: two parsers must not be able to see two values.
func TestID07VerifyRefusesDuplicateNames(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	v := newVerifier(t, p.issuerConfig())
	k := p.keys[0]
	const head = `{"alg":"ES256","kid":"k1"}`
	payload := payloadOf(p.mint(map[string]any{"org": map[string]any{"a": 1}}))
	for name, raw := range map[string]string{
		"aud":             sign(t, k, head, strings.Replace(payload, `{`, `{"aud":"other",`, 1)),
		"groups":          sign(t, k, head, strings.Replace(payload, `{`, `{"groups":["a"],"groups":["b"],`, 1)),
		"sub, escaped":    sign(t, k, head, strings.Replace(payload, `{`, `{"s\u0075b":"root",`, 1)),
		"below the top":   sign(t, k, head, strings.Replace(payload, `{"a":1}`, `{"a":1,"a":2}`, 1)),
		"in the header":   sign(t, k, `{"alg":"none","alg":"ES256","kid":"k1"}`, payload),
		"inside an array": sign(t, k, head, strings.Replace(payload, `{`, `{"x":[{"y":1,"y":2}],`, 1)),
	} {
		_, err := v.Verify(t.Context(), raw, UseTunnel)
		if refused, ok := err.(*TokenError); !ok || refused.Code != CodeClaimsDuplicate {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Names that differ in case are two names, and only the exact one counts.
	_, err := v.Verify(t.Context(), sign(t, k, head, strings.Replace(payload, `"aud"`, `"AUD"`, 1)), UseTunnel)
	if err == nil {
		t.Error("AUD was taken for aud")
	}
}

func TestVerifyReadsOneSpellingOnly(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	v := newVerifier(t, p.issuerConfig())
	good := p.mint(nil)
	parts := strings.Split(good, ".")
	full, _ := json.Marshal(map[string]string{"payload": parts[1], "protected": parts[0], "signature": parts[2]})
	for name, raw := range map[string]string{
		"padding":        good + "==",
		"line break":     parts[0] + ".\n" + parts[1] + "." + parts[2],
		"break inside":   parts[0] + "." + parts[1] + "." + parts[2][:10] + "\r\n" + parts[2][10:],
		"blank":          " " + good,
		"trailing bits":  parts[0] + "." + parts[1] + "." + respell(parts[2]),
		"plain base64":   parts[0] + "." + parts[1] + "." + strings.NewReplacer("-", "+", "_", "/").Replace(parts[2]) + "+",
		"two parts":      parts[0] + "." + parts[1],
		"five parts":     good + ".a.b",
		"json form":      string(full),
		"empty":          "",
		"too long":       parts[0] + "." + strings.Repeat("A", maxTokenBytes) + "." + parts[2],
		"no payload":     parts[0] + ".." + parts[2],
		"crit":           sign(t, p.keys[0], `{"alg":"ES256","kid":"k1","crit":["b64"],"b64":false}`, payloadOf(good)),
		"kid no string":  sign(t, p.keys[0], `{"alg":"ES256","kid":7}`, payloadOf(good)),
		"payload array":  sign(t, p.keys[0], `{"alg":"ES256","kid":"k1"}`, `[]`),
		"payload null":   sign(t, p.keys[0], `{"alg":"ES256","kid":"k1"}`, `null`),
		"trailing data":  sign(t, p.keys[0], `{"alg":"ES256","kid":"k1"}`, payloadOf(good)+`{}`),
		"invalid utf-8":  sign(t, p.keys[0], `{"alg":"ES256","kid":"k1"}`, strings.Replace(payloadOf(good), "8a7f3c", "\xff", 1)),
		"utf-16":         sign(t, p.keys[0], `{"alg":"ES256","kid":"k1"}`, "\xff\xfe{\x00}\x00"),
		"byte order":     sign(t, p.keys[0], `{"alg":"ES256","kid":"k1"}`, "\ufeff"+payloadOf(good)),
		"lone surrogate": sign(t, p.keys[0], `{"alg":"ES256","kid":"k1"}`, strings.Replace(payloadOf(good), "8a7f3c", `\ud800`, 1)),
	} {
		_, err := v.Verify(t.Context(), raw, UseTunnel)
		if refused, ok := err.(*TokenError); !ok || refused.Code != CodeTokenMalformed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// respell changes the unused low bits of the last character: another spelling of the
// same bytes to a lenient decoder.
func respell(part string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, part[len(part)-1])
	return part[:len(part)-1] + string(alphabet[last|1])
}

func TestVerifyKeepsTheDoorsApart(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	c := p.issuerConfig()
	c.BearerAudiences, c.ExtraAudiences, c.AuthorizedParties = []string{"api"}, []string{"account"}, []string{"portal"}
	v := newVerifier(t, c)
	for _, test := range []struct {
		use     Use
		changes map[string]any
		code    string
	}{
		{UseTunnel, nil, ""},
		{UseBearer, nil, CodeAudienceMismatch},
		{UseBearer, map[string]any{"aud": "api"}, ""},
		{UseTunnel, map[string]any{"aud": "api"}, CodeAudienceMismatch},
		{UseTunnel, map[string]any{"aud": []string{testClient, "api"}, "azp": testClient}, CodeAudienceMismatch},
		{UseTunnel, map[string]any{"aud": []string{testClient, "account"}, "azp": testClient}, ""},
		{UseTunnel, map[string]any{"aud": []string{testClient, "account"}, "azp": "portal"}, ""},
		{UseTunnel, map[string]any{"aud": []string{testClient, "account"}, "client_id": testClient}, ""},
		{UseTunnel, map[string]any{"aud": []string{testClient, "account"}}, CodePartyMismatch},
		{UseTunnel, map[string]any{"aud": []string{testClient, "account"}, "azp": "evil"}, CodePartyMismatch},
		{UseTunnel, map[string]any{"aud": []string{testClient, "evil"}, "azp": testClient}, CodeAudienceMismatch},
		{UseTunnel, map[string]any{"aud": []string{"account"}, "azp": testClient}, CodeAudienceMismatch},
		{UseTunnel, map[string]any{"aud": []string{}}, CodeClaimsInvalid},
		{UseTunnel, map[string]any{"aud": ""}, CodeClaimsInvalid},
		{UseTunnel, map[string]any{"aud": nil}, CodeClaimsInvalid},
		{UseTunnel, map[string]any{"aud": testClient + " "}, CodeAudienceMismatch},
		{UseTunnel, map[string]any{"azp": "evil"}, CodePartyMismatch},
		{UseTunnel, map[string]any{"appid": "evil"}, CodePartyMismatch},
		{UseTunnel, map[string]any{"cid": 7}, CodePartyMismatch},
		{UseTunnel, map[string]any{"azp": testClient, "client_id": "evil"}, CodePartyMismatch},
	} {
		_, err := v.Verify(t.Context(), p.mint(test.changes), test.use)
		if test.code == "" && err != nil {
			t.Errorf("%s %v: %v", test.use, test.changes, err)
		} else if test.code != "" {
			wantCode(t, err, test.code)
		}
	}
}

func TestVerifyRefusesOtherKindsOfTokens(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	v := newVerifier(t, p.issuerConfig())
	payload := payloadOf(p.mint(nil))
	for typ, ok := range map[string]bool{
		"": true, "JWT": true, "jwt": true, "at+jwt": true, "application/at+jwt": true, "AT+JWT": true,
		"logout+jwt": false, "refresh+jwt": false, "dpop+jwt": false, "secevent+jwt": false, "dpop+id_token": false, "JWS": false,
	} {
		_, err := v.Verify(t.Context(), sign(t, p.keys[0], fmt.Sprintf(`{"alg":"ES256","kid":"k1","typ":%q}`, typ), payload), UseTunnel)
		if ok && err != nil {
			t.Errorf("typ %q: %v", typ, err)
		} else if !ok {
			wantCode(t, err, CodeTypeRefused)
		}
	}
	for _, kind := range []any{"ID", "Bearer"} {
		if _, err := v.Verify(t.Context(), p.mint(map[string]any{"typ": kind}), UseTunnel); err != nil {
			t.Errorf("payload typ %v: %v", kind, err)
		}
	}
	for _, changes := range []map[string]any{
		{"typ": "Refresh"},
		{"typ": "Offline"},
		{"typ": "Logout"},
		{"typ": 7},
		{"idtyp": "app"},
		{"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}},
	} {
		_, err := v.Verify(t.Context(), p.mint(changes), UseTunnel)
		wantCode(t, err, CodeTypeRefused)
	}
	_, err := v.Verify(t.Context(), p.mint(map[string]any{"cnf": map[string]any{"jkt": "x"}}), UseTunnel)
	wantCode(t, err, CodeBindingUnsupported)
}

func TestNewVerifierRefusesUnsafeConfiguration(t *testing.T) {
	good := func() IssuerConfig {
		return IssuerConfig{Name: "corp", URL: "https://idp.test", ClientID: "c", Audiences: []string{"c"}}
	}
	for name, change := range map[string]func(c *IssuerConfig){
		"no audience":            func(c *IssuerConfig) { c.Audiences = nil },
		"empty audience":         func(c *IssuerConfig) { c.Audiences = []string{"c", ""} },
		"overlap":                func(c *IssuerConfig) { c.BearerAudiences = []string{"c"} },
		"slash in name":          func(c *IssuerConfig) { c.Name = "a/b" },
		"no name":                func(c *IssuerConfig) { c.Name = "" },
		"http":                   func(c *IssuerConfig) { c.URL = "http://idp.test" },
		"http on a lookalike":    func(c *IssuerConfig) { c.URL = "http://localhost.evil.test" },
		"no host":                func(c *IssuerConfig) { c.URL = "https:///x" },
		"query":                  func(c *IssuerConfig) { c.URL = "https://idp.test?x" },
		"symmetric algorithm":    func(c *IssuerConfig) { c.Algorithms = []string{"HS256"} },
		"none":                   func(c *IssuerConfig) { c.Algorithms = []string{"none"} },
		"no algorithm":           func(c *IssuerConfig) { c.Algorithms = []string{} },
		"groups no pointer":      func(c *IssuerConfig) { c.GroupsClaim = "groups" },
		"claim no pointer":       func(c *IssuerConfig) { c.Claims = map[string]string{"a": "b"} },
		"odd claim name":         func(c *IssuerConfig) { c.Claims = map[string]string{"a=b": "/b"} },
		"mfa":                    func(c *IssuerConfig) { c.MFA = "yes" },
		"mfa of a workload":      func(c *IssuerConfig) { c.MFA, c.Workload = "by-provider", true },
		"mfa claim without mfa":  func(c *IssuerConfig) { c.MFARequireClaim = "a=b" },
		"mfa claim without sign": func(c *IssuerConfig) { c.MFA, c.MFARequireClaim = "by-provider", "ab" },
		"negative age":           func(c *IssuerConfig) { c.MaxTokenAge = -1 },
	} {
		c := good()
		change(&c)
		if v, err := NewVerifier(t.Context(), []IssuerConfig{c}, VerifierOptions{}); err == nil {
			_ = v.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	twice := good()
	twice.URL = "https://other.test"
	other := good()
	other.Name, other.URL, other.Audiences, other.BearerAudiences = "second", "https://other.test", nil, []string{"c"}
	for name, list := range map[string][]IssuerConfig{"none": nil, "name twice": {good(), twice}, "overlap of two": {good(), other}} {
		if v, err := NewVerifier(t.Context(), list, VerifierOptions{}); err == nil {
			_ = v.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestVerifierEndsWithItsContext(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	ctx, cancel := context.WithCancel(t.Context())
	v, err := NewVerifier(ctx, []IssuerConfig{p.issuerConfig()}, VerifierOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestKeysFitTheirOwnAlgorithmOnly(t *testing.T) {
	// An ES256 key must not verify as ES512, whatever the header says.
	k := verifyKey{public: newECKey(t, "k").signer.Public()}
	for alg, fits := range map[string]bool{"ES256": true, "ES384": false, "ES512": false, "RS256": false, "EdDSA": false, "HS256": false, "": false} {
		if k.fits(alg) != fits {
			t.Errorf("fits(%q) = %v", alg, !fits)
		}
	}
}

func TestGoogleSpellsItsIssuerInTwoWays(t *testing.T) {
	p := newProvider(t, googleIssuer)
	v := newVerifier(t, p.issuerConfig())
	for _, iss := range []string{googleIssuer, "accounts.google.com"} {
		got, err := v.Verify(t.Context(), p.mint(map[string]any{"iss": iss}), UseTunnel)
		if err != nil || got.Principal.IssuerURL != googleIssuer {
			t.Errorf("%s: %v", iss, err)
		}
	}
	other := newProvider(t, "https://idp.test/realms/iap/") // the slash at the end is a part of the name
	v = newVerifier(t, other.issuerConfig())
	if i := v.issuers["https://idp.test/realms/iap"]; i != nil {
		t.Error("the slash was lost")
	}
}
