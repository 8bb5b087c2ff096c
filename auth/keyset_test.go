package auth

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// ID-09: a flood of unknown key ids costs the provider one fetch in ten seconds, and
// those whose key is known do not notice.
func TestID09UnknownKeyFloodFetchesAtMostOncePerTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t, "https://idp.test")
		v := newVerifier(t, p.issuerConfig())
		synctest.Wait()
		stranger, payload := newECKey(t, "x"), payloadOf(p.mint(nil))
		start, before := time.Now(), p.hit("/jwks")
		var wg sync.WaitGroup
		for n := range 2000 {
			wg.Go(func() {
				time.Sleep(time.Duration(n) * 5 * time.Millisecond)
				raw := sign(t, stranger, fmt.Sprintf(`{"alg":"ES256","kid":"x%d"}`, n), payload)
				_, err := v.Verify(t.Context(), raw, UseTunnel)
				wantCode(t, err, CodeSignatureInvalid)
			})
			if n%200 == 0 {
				asked := time.Now()
				if _, err := v.Verify(t.Context(), p.mint(nil), UseTunnel); err != nil || time.Since(asked) > 0 {
					t.Errorf("a known key waited %s: %v", time.Since(asked), err)
				}
			}
		}
		wg.Wait()
		if took, fetched := time.Since(start), p.hit("/jwks")-before; fetched > 2 || took > 11*time.Second {
			t.Errorf("%d fetches in %s", fetched, took)
		}
		if n := len(v.issuers[p.issuer].keys.unknown); n > maxUnknownKeys {
			t.Errorf("%d unknown ids remembered", n)
		}
		_ = v.Close()
	})
}

func TestRotatedKeyIsFetchedOnFirstUseAndRemovedKeyForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t, "https://idp.test")
		v := newVerifier(t, p.issuerConfig())
		synctest.Wait()
		old := p.mint(map[string]any{"exp": time.Now().Add(time.Hour).Unix()})
		time.Sleep(keysMinInterval)
		p.mu.Lock()
		p.keys = []testKey{newECKey(t, "k2")}
		p.mu.Unlock()
		if _, err := v.Verify(t.Context(), old, UseTunnel); err != nil {
			t.Errorf("before the provider was asked again: %v", err)
		}
		if _, err := v.Verify(t.Context(), p.mint(nil), UseTunnel); err != nil {
			t.Errorf("new key: %v", err)
		}
		_, err := v.Verify(t.Context(), old, UseTunnel)
		wantCode(t, err, CodeSignatureInvalid)
		_ = v.Close()
	})
}

func TestRemovedKeyIsForgottenByTheTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t, "https://idp.test")
		v := newVerifier(t, p.issuerConfig())
		synctest.Wait()
		old := p.mint(map[string]any{"exp": time.Now().Add(time.Hour).Unix()})
		p.mu.Lock()
		p.keys = []testKey{newECKey(t, "k1")} // the same id, another key
		p.mu.Unlock()
		time.Sleep(keysRefresh + time.Second)
		_, err := v.Verify(t.Context(), old, UseTunnel)
		wantCode(t, err, CodeSignatureInvalid)
		if n := p.hit("/jwks"); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
		_ = v.Close()
	})
}

func TestKeyAskedTooEarlyIsThereSoonAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t, "https://idp.test")
		v := newVerifier(t, p.issuerConfig())
		synctest.Wait()
		p.mu.Lock()
		p.keys = []testKey{newECKey(t, "k2")}
		p.mu.Unlock()
		_, err := v.Verify(t.Context(), p.mint(nil), UseTunnel)
		wantCode(t, err, CodeSignatureInvalid)
		time.Sleep(keysMinInterval)
		synctest.Wait()
		if _, err := v.Verify(t.Context(), p.mint(nil), UseTunnel); err != nil {
			t.Errorf("ten seconds later: %v", err)
		}
		_ = v.Close()
	})
}

// ID-11 and FI-05: an answer that is no good key set leaves the old one in use.
func TestID11BadKeySetLeavesTheOldOneInUse(t *testing.T) {
	many := func(n int) any {
		var set jose.JSONWebKeySet
		k := newECKey(t, "k")
		for i := range n {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.signer.Public(), KeyID: fmt.Sprint(i)})
		}
		return set
	}
	for name, handler := range map[string]http.HandlerFunc{
		"5,000 keys": func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, many(5000)) },
		"101 keys":   func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, many(101)) },
		"none":       func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, many(0)) },
		"2 MiB":      func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 2<<20)) },
		"long and odd": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"keys":[],"x":%q}`, strings.Repeat("x", 1<<20))
		},
		"html":    func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>sorry</html>") },
		"500":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"dropped": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"another host": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.test/jwks", http.StatusFound)
		},
		"loop":  func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/jwks", http.StatusFound) },
		"hangs": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done(); panic(http.ErrAbortHandler) },
		"twice": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":[],"keys":[]}`) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newProvider(t, "https://idp.test")
				v := newVerifier(t, p.issuerConfig())
				synctest.Wait()
				p.mu.Lock()
				p.override["/jwks"] = handler
				p.mu.Unlock()
				time.Sleep(keysRefresh + providerTimeout + time.Second)
				if p.hit("/jwks") < 2 {
					t.Fatal("the bad key set was never fetched")
				}
				if _, err := v.Verify(t.Context(), p.mint(nil), UseTunnel); err != nil {
					t.Errorf("known key: %v", err)
				}
				// Nobody confirms the keys for a day. (The cheapest failure: it
				// is repeated some thousand times.)
				p.mu.Lock()
				p.override["/.well-known/openid-configuration"] = http.NotFound
				p.mu.Unlock()
				time.Sleep(keysMaxAge)
				_, err := v.Verify(t.Context(), p.mint(nil), UseTunnel)
				wantCode(t, err, CodeIssuerUnavailable)
				_ = v.Close()
			})
		})
	}
}

// ID-11: foreign and weak keys are left out, good ones beside them stay.
func TestID11KeySetLeavesOutUnusableKeys(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal("the test needs a weak key: ", err)
	}
	good, twin := newECKey(t, "good"), newECKey(t, "good")
	members := func(k any, change map[string]any) string {
		data, err := json.Marshal(jose.JSONWebKey{Key: k, KeyID: "bad"})
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		_ = json.Unmarshal(data, &m)
		for name, value := range change {
			m[name] = value
		}
		data, _ = json.Marshal(m)
		return string(data)
	}
	keys := []string{
		members(weak.Public(), nil),
		members(good.signer.Public(), map[string]any{"use": "enc"}),
		members(good.signer.Public(), map[string]any{"key_ops": []string{"encrypt"}}),
		members(good.signer.Public(), map[string]any{"y": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}),
		members([]byte("a symmetric key of many bytes..."), nil),
		members(good.signer, nil), // private
		`{"kty":"EC"}`, `{}`, `7`, `null`, `{"kty":"RSA","n":"","e":""}`, `{"kty":"XYZ","kid":"bad"}`,
		members(good.signer.Public(), map[string]any{"kid": "good"}),
		members(twin.signer.Public(), map[string]any{"kid": "good"}),
	}
	set, err := parseKeySet([]byte(`{"keys":[` + strings.Join(keys, ",") + `]}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(set) != 2 || set[0].id != "good" || set[1].id != "good" {
		t.Fatalf("%d keys of use: %+v", len(set), set)
	}
	p := newProvider(t, "https://idp.test")
	p.keys = []testKey{good, twin}
	v := newVerifier(t, p.issuerConfig())
	for _, k := range []testKey{good, twin} { // the same id twice: each is tried
		if _, err := v.Verify(t.Context(), sign(t, k, `{"alg":"ES256","kid":"good"}`, payloadOf(p.mint(nil))), UseTunnel); err != nil {
			t.Error(err)
		}
	}
}

func TestProviderDownAtStartIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t, "https://idp.test")
		down := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
		p.override["/.well-known/openid-configuration"] = down
		c := p.issuerConfig()
		v, err := NewVerifier(t.Context(), []IssuerConfig{c}, VerifierOptions{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.Verify(t.Context(), p.mint(nil), UseTunnel)
		wantCode(t, err, CodeIssuerUnavailable)
		time.Sleep(10 * time.Minute)
		if n := p.hit("/.well-known/openid-configuration"); n < 10 || n > 40 {
			t.Errorf("%d attempts in ten minutes", n)
		}
		p.mu.Lock()
		delete(p.override, "/.well-known/openid-configuration")
		p.mu.Unlock()
		time.Sleep(keysRetryMin)
		if _, err = v.Verify(t.Context(), p.mint(nil), UseTunnel); err != nil {
			t.Errorf("provider is back, the first login: %v", err)
		}
		_ = v.Close()
	})
}

func TestVerifyReturnsWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t, "https://idp.test")
		p.override["/jwks"] = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done(); panic(http.ErrAbortHandler) }
		v := newVerifier(t, p.issuerConfig())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := v.Verify(ctx, p.mint(nil), UseTunnel)
		wantCode(t, err, CodeIssuerUnavailable)
		if time.Since(start) != time.Second {
			t.Errorf("returned after %s", time.Since(start))
		}
		_ = v.Close()
	})
}

func TestKeysComeFromAFileWhereTheProviderIsOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t, "https://kubernetes.default.svc.cluster.local")
		file := filepath.Join(t.TempDir(), "cluster.jwks")
		write := func(keys ...testKey) {
			data, err := json.Marshal(keySetOf(keys...))
			if err == nil {
				err = os.WriteFile(file, data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		write(p.keys[0])
		c := p.issuerConfig()
		c.KeysFile = file
		v := newVerifier(t, c)
		accepted := func() bool { _, err := v.Verify(t.Context(), p.mint(nil), UseTunnel); return err == nil }
		if !accepted() {
			t.Error("the key of the file was refused")
		}
		if err := CheckIssuer(t.Context(), c); err != nil {
			t.Errorf("check: %v", err)
		}
		next := newECKey(t, "k2")
		write(next)
		time.Sleep(keysRefresh)
		synctest.Wait()
		if accepted() {
			t.Error("a key that left the file is still in use")
		}
		p.keys = []testKey{next}
		if !accepted() {
			t.Error("the new key of the file was refused")
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(keysRefresh)
		synctest.Wait()
		if !accepted() {
			t.Error("a file that is gone for a moment took its keys along")
		}
		time.Sleep(keysMaxAge)
		synctest.Wait()
		if accepted() {
			t.Error("keys that nobody has confirmed for a day are in use")
		}
		if n := p.hit("/.well-known/openid-configuration") + p.hit("/jwks"); n != 0 {
			t.Errorf("the provider was asked %d times", n)
		}
		_ = v.Close()
	})
}

func TestKeysURLTakesThePlaceOfDiscovery(t *testing.T) {
	p := newProvider(t, "https://kubernetes.default.svc.cluster.local")
	p.discovery = func(doc map[string]any) { doc["jwks_uri"] = "https://10.0.0.1:6443/jwks" } // as API servers say
	if _, err := newVerifier(t, p.issuerConfig()).Verify(t.Context(), p.mint(nil), UseTunnel); err == nil {
		t.Error("a private address in a public name's document was followed")
	}
	c := p.issuerConfig()
	c.KeysURL = "https://10.0.0.1:6443/jwks"
	if _, err := newVerifier(t, c).Verify(t.Context(), p.mint(nil), UseTunnel); err != nil {
		t.Errorf("the configured address: %v", err)
	}
	for _, url := range []string{"http://10.0.0.1/jwks", "jwks", "https:///x", "file:///etc/passwd"} {
		c.KeysURL = url
		if CheckIssuer(t.Context(), c) == nil {
			t.Errorf("keys_url %s was accepted", url)
		}
	}
	c.KeysURL, c.KeysFile = "https://10.0.0.1:6443/jwks", "x"
	if CheckIssuer(t.Context(), c) == nil {
		t.Error("keys_url beside keys_file was accepted")
	}
}
