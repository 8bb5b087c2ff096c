package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"iap/auth"
	"iap/internal/profile"
)

func (a *app) authCommand() *cobra.Command {
	status := &cobra.Command{
		Use:   "status",
		Short: "Show whether and how you are logged in, without asking anybody",
		Long: `Show what this machine knows of the login: where the credentials lie, which
key they belong to and when the token ends. Nothing secret is shown and nobody
is asked. Exit status 4 if a login is needed.`,
		Example: "  iapctl auth status\n  iapctl auth status -o json",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.authStatus(cmd.Context()) },
	}
	token := &cobra.Command{
		Use:   "token",
		Short: "Print a token for the relay's front door",
		Long: `Print a token that is good for a while, renewed if needed. It goes into the
Authorization header of requests to https://RELAY/r/RESOURCE/… if the relay
accepts bearer tokens of this provider.

The token is a secret: whoever has it may use the front door as you.`,
		Example: `  curl -H "Authorization: Bearer $(iapctl auth token)" \
    https://iap.example.com/r/phi3/v1/models`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.authToken(cmd.Context()) },
	}
	return group("auth COMMAND", "Look at the login itself", "Look at the login of this profile.", status, token, a.fetchCommand())
}

func (a *app) authStatus(ctx context.Context) error {
	p, err := a.profile()
	if err != nil {
		return err
	}
	doc, err := a.authState(ctx, p)
	if err != nil {
		return err
	}
	if done, err := a.json(doc); done {
		return firstError(err, loginNeeded(doc))
	}
	state := a.ui.out.bad.Render("not logged in")
	if doc.LoggedIn {
		state = a.ui.out.good.Render("logged in")
	}
	renewal, since, ends := "", "", ""
	if doc.LoggedIn && doc.Source == "store" {
		renewal = yesNo(doc.Refreshable)
	}
	if doc.Since != nil {
		since = clock(*doc.Since)
	}
	if doc.Expires != nil {
		ends = clock(*doc.Expires)
	}
	a.pairs(
		a.out, a.ui.out, 0,
		[2]string{"Profile", doc.Profile}, [2]string{"Relay", clean(doc.Relay)}, [2]string{"State", state},
		[2]string{"Principal", clean(doc.Principal)}, [2]string{"Provider", clean(strings.TrimSpace(doc.Issuer + " " + doc.IssuerURL))},
		[2]string{"Since", since}, [2]string{"Token ends", ends}, [2]string{"Renewed", renewal},
		[2]string{"Kept in", clean(doc.Store)}, [2]string{"Key", doc.Key},
	)
	return loginNeeded(doc)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func loginNeeded(doc authDocument) error {
	if doc.LoggedIn {
		return nil
	}
	next := "iapctl login"
	if doc.Relay == "" {
		next = "iapctl login RELAY"
	}
	return &failure{code: "login_required", what: fmt.Sprintf("profile %s is not logged in", doc.Profile), next: next}
}

// authState collects what this machine knows.
func (a *app) authState(ctx context.Context, p *profile.Profile) (authDocument, error) {
	doc := authDocument{Schema: schemaName, Profile: p.Name, Relay: p.Settings.Relay, Source: "store"}
	if a.external() {
		doc.LoggedIn, doc.Source = true, "token_command"
		if a.env("IAP_TOKEN_FILE") != "" {
			doc.Source, doc.Store = "token_file", a.env("IAP_TOKEN_FILE")
		}
		return doc, nil
	}
	state, err := p.State()
	if err != nil || state.Login == nil {
		return doc, err
	}
	store := a.store(p)
	doc.Store = store.Where()
	credentials, err := store.Load(ctx, p.Name)
	if errors.Is(err, auth.ErrNotFound) {
		return doc, nil
	}
	if err != nil {
		return doc, err
	}
	doc.LoggedIn = true
	doc.Issuer, doc.IssuerURL = state.Login.IssuerName, state.Login.IssuerURL
	doc.Principal, doc.Since = state.Login.Principal, timePtr(state.Login.At)
	doc.Expires, doc.Refreshable = timePtr(credentials.Tokens.Expires), credentials.Tokens.RefreshToken != ""
	if len(credentials.Key) == ed25519.PrivateKeySize {
		doc.Key = auth.KeyID(credentials.Key.Public().(ed25519.PublicKey))
	}
	return doc, nil
}

func (a *app) authToken(ctx context.Context) error {
	p, err := a.profile()
	if err != nil {
		return err
	}
	login, err := a.loginReader(p)(ctx)
	if err != nil {
		return err
	}
	token, err := login.Token(ctx)
	if err != nil {
		return err
	}
	if done, err := a.json(tokenDocument{Schema: schemaName, Token: token}); done {
		return err
	}
	fmt.Fprintln(a.out, token)
	return nil
}
