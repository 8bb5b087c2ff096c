package auth

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"

	"golang.org/x/oauth2"
)

// RedirectPath is the path of the redirect URI of Browser. Register
// http://127.0.0.1/callback (any port: RFC 8252 section 7.3) at the provider.
const RedirectPath = "/callback"

// Browser logs a person in with the authorization code flow for native programs
// (RFC 8252): PKCE S256, a loopback redirect, state, the issuer in the response (RFC
// 9207) and the nonce, which must be NonceForKey of the session key: the token then
// names the key. open is given the address to open; it may print it instead.
// Errors are of type *LoginError.
func (l *Login) Browser(ctx context.Context, nonce string, open func(url string) error) (*Tokens, error) {
	if nonce == "" {
		return nil, &LoginError{Code: CodeLoginFailed, Public: "the login is not configured rightly", Err: errors.New("nonce is empty")}
	}
	ctx, cancel := context.WithTimeout(ctx, browserTimeout)
	defer cancel()
	r, err := l.prepare(ctx)
	if err != nil {
		return nil, err
	}
	if r.meta.AuthURL == "" {
		return nil, &LoginError{Code: CodeLoginMethodBlocked, Public: "the provider has no login page", Hint: "iapctl login"}
	}
	verifier := oauth2.GenerateVerifier()
	code, err := r.authorizeInBrowser(ctx, verifier, nonce, open)
	if err != nil {
		return nil, err
	}
	tok, err := r.config.Exchange(r.oauthContext(ctx), code, oauth2.VerifierOption(verifier))
	if err != nil {
		return nil, grantFailed(ctx, err)
	}
	return r.tokens(tok, nonce)
}

// authorizeInBrowser sends the person to the provider and waits for the code to come
// back to a port that listens only for that long.
func (r *relying) authorizeInBrowser(ctx context.Context, verifier, nonce string, open func(string) error) (string, error) {
	state, err := randomText()
	if err != nil {
		return "", &LoginError{Code: CodeLoginFailed, Public: "the login could not be prepared", Err: err}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", &LoginError{Code: CodeLoginFailed, Public: "no local port could be opened for the login", Err: err}
	}
	callback := newCallback(state, r.Issuer, r.meta.IssuerInResponse)
	server := callback.serve(ln)
	defer server.stop()

	r.config.RedirectURL = r.redirectURL(ln.Addr())
	options := append(r.params(), oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("nonce", nonce))
	if err := open(r.config.AuthCodeURL(state, options...)); err != nil {
		return "", &LoginError{Code: CodeBrowserUnavailable, Public: "the browser could not be opened", Hint: "iapctl login", Err: err}
	}
	select {
	case a := <-callback.answers:
		return a.code, a.failure()
	case <-ctx.Done():
		return "", contextEnded(ctx)
	}
}

func (r *relying) redirectURL(addr net.Addr) string {
	host := r.RedirectHost
	if host == "" {
		host = "127.0.0.1"
	}
	_, port, _ := net.SplitHostPort(addr.String()) // a listener's address has a port
	return "http://" + net.JoinHostPort(host, port) + RedirectPath
}

func randomText() (string, error) {
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("read random bytes: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b[:]), nil
}

// authorizationAnswer is what the browser brought back.
type authorizationAnswer struct {
	code string
	err  *LoginError
}

func (a authorizationAnswer) failure() error {
	if a.err != nil {
		return a.err
	}
	return nil
}

func badAnswer(format string, args ...any) authorizationAnswer {
	return authorizationAnswer{err: &LoginError{
		Code: CodeProviderMisbehaves, Public: "the answer of the login page is not acceptable",
		Hint: "iapctl login --browser", Err: fmt.Errorf(format, args...),
	}}
}

// readAnswer reads the redirect's query once its state has been found right.
func readAnswer(r *http.Request, issuer string, issuerRequired bool) authorizationAnswer {
	q := r.URL.Query()
	for _, name := range []string{"code", "iss", "error"} {
		if len(q[name]) > 1 {
			return badAnswer("parameter %s occurs more than once", name)
		}
	}
	// RFC 9207: an answer of another provider is a mix-up attack.
	if iss := q.Get("iss"); iss != issuer && (iss != "" || issuerRequired) {
		return badAnswer("its issuer is %q", displayText(iss, maxDisplay))
	}
	switch code := q.Get("error"); {
	case code == "access_denied":
		return authorizationAnswer{err: &LoginError{Code: CodeLoginDenied, Public: "the login was denied", Err: describe(code, q.Get("error_description"))}}
	case code == "unauthorized_client" || code == "unsupported_response_type":
		return authorizationAnswer{err: &LoginError{
			Code: CodeLoginMethodBlocked, Public: "the provider does not allow this client to log in through the browser",
			Hint: "iapctl login", Err: describe(code, q.Get("error_description")),
		}}
	case code != "":
		return authorizationAnswer{err: &LoginError{Code: CodeLoginFailed, Public: "the identity provider refused the login", Err: describe(code, q.Get("error_description"))}}
	case q.Get("code") == "":
		return badAnswer("there is no code")
	}
	return authorizationAnswer{code: q.Get("code")}
}

func describe(code, description string) error {
	return &answerError{code: displayText(code, maxDisplay), description: displayText(description, maxDisplay)}
}
