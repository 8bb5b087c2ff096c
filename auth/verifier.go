package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// VerifierOptions are optional.
type VerifierOptions struct {
	Logger *slog.Logger     // nil: silent
	Now    func() time.Time // the clock tokens are measured by; nil: time.Now
}

// Verifier turns a token of one of several issuers into a Principal. It is safe
// for concurrent use.
type Verifier struct {
	issuers map[string]*issuer // by each spelling of "iss"; of several with one URL the first
	log     *slog.Logger
	now     func() time.Time
	stop    context.CancelFunc
	running sync.WaitGroup
}

// NewVerifier checks the configuration and starts fetching the issuers' keys in the
// background, until Close or the end of ctx. A provider that does not answer is not
// an error: its tokens are refused with issuer_unavailable until it does.
func NewVerifier(ctx context.Context, issuers []IssuerConfig, o VerifierOptions) (*Verifier, error) {
	v := &Verifier{issuers: make(map[string]*issuer), log: o.Logger, now: o.Now}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	if v.now == nil {
		v.now = time.Now
	}
	compiled, err := compileIssuers(issuers)
	if err != nil {
		return nil, fmt.Errorf("configure issuers: %w", err)
	}
	ctx, v.stop = context.WithCancel(ctx)
	for _, i := range compiled {
		i.keys = newKeySet(i.IssuerConfig, v.log)
		v.running.Go(func() { i.keys.run(ctx) })
		if first := v.issuers[i.URL]; first != nil {
			first.beside = append(first.beside, i)
			continue
		}
		for _, spelling := range i.spellings() {
			v.issuers[spelling] = i
		}
	}
	return v, nil
}

// Close ends the refresh of keys and waits for it.
func (v *Verifier) Close() error {
	v.stop()
	v.running.Wait()
	return nil
}

// compileIssuers checks each issuer and what must hold among them: names and URLs
// are unique, and no audience opens both doors. Two may share a URL where one is of
// people and one of programs, and nothing that is for the one suits the other.
func compileIssuers(configs []IssuerConfig) ([]*issuer, error) {
	if len(configs) == 0 {
		return nil, errors.New("none is configured")
	}
	var out []*issuer
	names, urls := make(map[string]bool), make(map[string]*issuer)
	var tunnel, bearer []string
	for _, c := range configs {
		i, err := compileIssuer(c)
		if err != nil {
			return nil, err
		}
		if names[c.Name] {
			return nil, fmt.Errorf("issuer %q: its name is used twice", c.Name)
		}
		if err := i.checkBeside(urls[c.URL]); err != nil {
			return nil, fmt.Errorf("issuer %q: %w", c.Name, err)
		}
		names[c.Name], urls[c.URL] = true, i
		tunnel, bearer = append(tunnel, c.Audiences...), append(bearer, c.BearerAudiences...)
		out = append(out, i)
	}
	for _, a := range tunnel {
		if slices.Contains(bearer, a) {
			return nil, fmt.Errorf("audience %q: accepted in the tunnel and at the front door; a token must open one of them only", a)
		}
	}
	return out, nil
}

// Verify returns what the token says once its signature and every rule of the issuer
// hold. Of an unverified token only the issuer's name, the algorithm, the type and
// the key id are acted on. Errors are of type *TokenError.
func (v *Verifier) Verify(ctx context.Context, raw string, use Use) (*Token, error) {
	t, refused := v.verify(ctx, raw, use)
	if refused != nil {
		return nil, refused
	}
	return t, nil
}

func (v *Verifier) verify(ctx context.Context, raw string, use Use) (*Token, *TokenError) {
	t, refused := parseCompact(raw)
	if refused != nil {
		return nil, refused
	}
	iss, _ := t.claims.text("iss")
	i, ok := v.issuers[iss]
	if !ok {
		return nil, refuse(CodeIssuerUnknown, "issuer %q is not configured", displayText(iss, maxDisplay))
	}
	i = i.meant(t.claims)
	if refused := i.checkHeader(t.header); refused != nil {
		return nil, refused
	}
	now := v.now()
	if refused := i.checkSignature(ctx, raw, t, now); refused != nil {
		return nil, refused
	}
	return i.token(t, use, now)
}

// checkSignature lets go-oidc verify signature and issuer with our key set. Its own
// checks of audience and expiry are left out: ours (rules.go) are stricter, know
// several audiences and a skew.
func (i *issuer) checkSignature(ctx context.Context, raw string, t *compactToken, now time.Time) *TokenError {
	call := &signatureCall{set: i.keys, header: t.header}
	config := &oidc.Config{
		SupportedSigningAlgs: i.Algorithms,
		SkipClientIDCheck:    true,
		SkipExpiryCheck:      true,
		Now:                  func() time.Time { return now },
	}
	_, err := oidc.NewVerifier(i.URL, call, config).Verify(ctx, raw)
	switch {
	case errors.Is(call.err, errNoKeys):
		return refuse(CodeIssuerUnavailable, "issuer %q: %w", i.Name, call.err)
	case call.err != nil:
		return refuse(CodeSignatureInvalid, "issuer %q: %w", i.Name, call.err)
	case err != nil:
		return refuse(CodeTokenMalformed, "issuer %q: %w", i.Name, err)
	case !call.verified || !bytes.Equal(call.payload, t.payload):
		return refuse(CodeTokenMalformed, "issuer %q: the verified payload is not the one read", i.Name)
	}
	return nil
}

// signatureCall is the oidc.KeySet of one verification: it keeps the typed error,
// which go-oidc turns into text.
type signatureCall struct {
	set      *keySet
	header   header
	payload  []byte
	verified bool
	err      error
}

func (c *signatureCall) VerifySignature(ctx context.Context, raw string) ([]byte, error) {
	c.payload, c.err = c.set.verify(ctx, raw, c.header)
	c.verified = c.err == nil
	return c.payload, c.err
}

// token checks the claims of a token whose signature holds, and reads them.
func (i *issuer) token(t *compactToken, use Use, now time.Time) (*Token, *TokenError) {
	out := &Token{PayloadHash: sha256.Sum256(t.payload)}
	for _, check := range []func(claims, *Token) *TokenError{
		i.checkKind,
		func(c claims, out *Token) *TokenError { return i.checkTimes(c, out, now) },
		func(c claims, _ *Token) *TokenError { return i.checkAudience(c, use) },
		func(c claims, _ *Token) *TokenError { return i.checkParty(c) },
		i.readPrincipal,
	} {
		if refused := check(t.claims, out); refused != nil {
			return nil, refused
		}
	}
	out.Nonce, _ = t.claims.text("nonce")
	out.AMR, _ = t.claims.texts("amr")
	out.SessionID, _ = t.claims.text("sid")
	return out, nil
}
