package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// Which token of the provider's answer is presented to the relay (Login.Pick).
const (
	PickIDToken     = "id_token"
	PickAccessToken = "access_token"
)

// Login obtains tokens from one provider for one public client. Its methods may be
// called concurrently; it keeps no state between calls.
type Login struct {
	Issuer       string            // the provider's URL, exactly its "issuer"
	ClientID     string            // a public client
	ClientSecret string            // for providers that demand one of public clients
	Scopes       []string          // "openid" is added where it is missing
	Params       map[string]string // further parameters of the authorization request (audience, resource, access_type)
	Pick         string            // PickIDToken (default) or PickAccessToken
	RedirectHost string            // of Browser's redirect: "127.0.0.1" (default) or "localhost", as registered (Entra wants localhost)
	HTTPClient   *http.Client      // nil: a client with our limits; its redirect rule is always ours
	Logger       *slog.Logger      // nil: silent
}

// Tokens are a provider's answer. Subject, Email and Name are read without
// verification and are for display only; who someone is, the relay decides.
type Tokens struct {
	Token        string    `json:"token"` // what the relay gets: IDToken or AccessToken
	IDToken      string    `json:"id_token,omitempty"`
	AccessToken  string    `json:"access_token,omitempty"`
	RefreshToken string    `json:"refresh_token,omitempty"`
	Expires      time.Time `json:"expires"` // of Token; zero: unknown
	Subject      string    `json:"subject,omitempty"`
	Email        string    `json:"email,omitempty"`
	Name         string    `json:"name,omitempty"`
}

// DevicePrompt is what a person must see to complete a device login. All of it has
// been stripped of control characters and cut to a sensible length.
type DevicePrompt struct {
	VerificationURI string // show it; it may still be something not to open
	// VerificationURIComplete holds the code already; empty if there is none or if
	// it is not safe to open.
	VerificationURIComplete string
	UserCode                string
	Expires                 time.Time
	// Open is the address to hand to OpenBrowser, or empty if the provider sent
	// none that is https (or loopback http) and free of control characters.
	Open string
}

// relying is one use of a provider: its metadata and how to talk to it.
type relying struct {
	*Login
	meta   metadata
	config oauth2.Config
	client *http.Client
}

// prepare reads the provider's discovery document.
func (l *Login) prepare(ctx context.Context) (*relying, error) {
	if err := l.check(); err != nil {
		return nil, &LoginError{Code: CodeLoginFailed, Public: "the login is not configured rightly", Err: err}
	}
	r := &relying{Login: l, client: newClient(l.HTTPClient, loginTimeout)}
	var err error
	if r.meta, err = discover(ctx, r.client, l.Issuer); err != nil {
		return nil, requestFailed(ctx, err)
	}
	r.config = oauth2.Config{
		ClientID: l.ClientID, ClientSecret: l.ClientSecret,
		Endpoint: r.meta.endpoint(), Scopes: l.scopes(),
	}
	return r, nil
}

// reservedParams are set by the protocol; a configuration that sets them would undo
// its protection.
var reservedParams = []string{
	"client_id", "client_secret", "redirect_uri", "response_type", "response_mode", "scope", "state", "nonce",
	"code_challenge", "code_challenge_method", "code", "code_verifier", "grant_type", "device_code",
}

func (l *Login) check() error {
	if l.ClientID == "" {
		return errors.New("client id is empty")
	}
	if l.Pick != "" && l.Pick != PickIDToken && l.Pick != PickAccessToken {
		return fmt.Errorf("pick %q is neither %s nor %s", l.Pick, PickIDToken, PickAccessToken)
	}
	if !slices.Contains([]string{"", "127.0.0.1", "localhost"}, l.RedirectHost) {
		return fmt.Errorf("redirect host %q is neither 127.0.0.1 nor localhost", l.RedirectHost)
	}
	for name := range l.Params {
		if slices.Contains(reservedParams, name) {
			return fmt.Errorf("parameter %q belongs to the protocol", name)
		}
	}
	return nil
}

func (l *Login) scopes() []string {
	if slices.Contains(l.Scopes, "openid") {
		return l.Scopes
	}
	return append([]string{"openid"}, l.Scopes...)
}

// params are the further parameters of an authorization request.
func (l *Login) params() []oauth2.AuthCodeOption {
	var out []oauth2.AuthCodeOption
	for name, value := range l.Params {
		out = append(out, oauth2.SetAuthURLParam(name, value))
	}
	return out
}

// oauthContext makes x/oauth2, which has no timeout of its own, use our client.
func (r *relying) oauthContext(ctx context.Context) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, r.client)
}

func (l *Login) logger() *slog.Logger {
	if l.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l.Logger
}

// tokens reads a provider's answer. The ID token must be the provider's, for this
// client and, if one was sent, with this nonce; its signature is left to the relay.
func (r *relying) tokens(tok *oauth2.Token, nonce string) (*Tokens, error) {
	idToken, _ := tok.Extra("id_token").(string)
	t := &Tokens{IDToken: idToken, AccessToken: tok.AccessToken, RefreshToken: tok.RefreshToken, Expires: tok.Expiry}
	if err := r.readIDToken(t, nonce); err != nil {
		return nil, &LoginError{Code: CodeProviderMisbehaves, Public: "the provider's ID token is not for this login", Err: err}
	}
	t.Token = t.IDToken
	if r.Pick == PickAccessToken {
		t.Token = t.AccessToken
	}
	if t.Token == "" {
		return nil, &LoginError{Code: CodeLoginFailed, Public: "the provider sent no ID token", Hint: "allow the scope openid for this client"}
	}
	c, err := unverifiedClaims(t.Token)
	if err != nil {
		return nil, &LoginError{
			Code: CodeLoginFailed, Public: "the provider's token is not one a relay can verify",
			Hint: "the issuer's configuration may need an audience", Err: err,
		}
	}
	if exp, present, ok := c.time("exp"); present && ok {
		t.Expires = exp
	}
	if t.Subject == "" {
		t.Subject, _ = c.text("sub")
	}
	return t, nil
}

// readIDToken checks what OIDC Core 3.1.3.7 leaves to the client beside the
// signature, and takes the names to display.
func (r *relying) readIDToken(t *Tokens, nonce string) error {
	if t.IDToken == "" {
		if nonce != "" {
			return errors.New("there is none, so nothing carries the nonce")
		}
		return nil
	}
	c, err := unverifiedClaims(t.IDToken)
	if err != nil {
		return err
	}
	iss, _ := c.text("iss")
	aud, _ := c.audience()
	got, _ := c.text("nonce")
	switch {
	case iss != r.Issuer && !(r.Issuer == googleIssuer && iss == strings.TrimPrefix(googleIssuer, "https://")):
		return fmt.Errorf("issued by %q", displayText(iss, maxDisplay))
	case !slices.Contains(aud, r.ClientID):
		return errors.New("issued for another client")
	case nonce != "" && got != nonce:
		return errors.New("its nonce is not the one sent")
	}
	name, _ := c.text("name")
	email, _ := c.text("email")
	t.Subject, _ = c.text("sub")
	t.Name, t.Email = displayText(name, maxDisplay), displayText(email, maxDisplay)
	return nil
}

// keep returns t with what a refresh does not repeat taken from old.
func (t Tokens) keep(old Tokens) Tokens {
	for _, f := range []struct{ field, old *string }{
		{&t.RefreshToken, &old.RefreshToken},
		{&t.Subject, &old.Subject},
		{&t.Email, &old.Email},
		{&t.Name, &old.Name},
	} {
		if *f.field == "" {
			*f.field = *f.old
		}
	}
	return t
}
