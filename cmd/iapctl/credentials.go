package main

import (
	"context"
	"sync"

	"iap/auth"
	"iap/internal/connect"
	"iap/internal/profile"
)

// external reports whether tokens come from outside, as in CI.
func (a *app) external() bool {
	return a.tokenSource() != ""
}

// tokenSource is the variable that tokens come from, "" if they come from a login.
func (a *app) tokenSource() string {
	for _, name := range []string{"IAP_TOKEN_FILE", "IAP_TOKEN_COMMAND"} { // in the order in which they count
		if a.env(name) != "" {
			return name
		}
	}
	return ""
}

// loginID tells one login from the next without opening the keyring.
func loginID(p *profile.Profile) string {
	state, err := p.State()
	if err != nil || state.Login == nil {
		return ""
	}
	return state.Login.ID
}

// loginReader reads who is logged in, anew at each call. With a token from outside the key lives as long as the process.
func (a *app) loginReader(p *profile.Profile) func(context.Context) (connect.Login, error) {
	if a.external() {
		key, keyErr := auth.NewKey()
		source := auth.NewSource(auth.SourceConfig{
			TokenFile: a.env("IAP_TOKEN_FILE"), TokenCommand: a.env("IAP_TOKEN_COMMAND"), Logger: a.logger(),
		})
		return func(context.Context) (connect.Login, error) {
			return connect.Login{ID: "external", Key: key, Token: source.Token, Refresh: source.Refresh, Source: a.tokenSource()}, keyErr
		}
	}
	r := &storedLogin{app: a, profile: p, store: a.store(p)}
	return r.read
}

// storedLogin keeps one source of tokens for as long as a login lasts: it may hold a token that the store did not take.
type storedLogin struct {
	app     *app
	profile *profile.Profile
	store   auth.Store

	mu     sync.Mutex
	id     string       // guarded by mu; login that source belongs to
	source *auth.Source // guarded by mu
}

func (r *storedLogin) read(ctx context.Context) (connect.Login, error) {
	state, err := r.profile.State()
	if err != nil {
		return connect.Login{}, err
	}
	if state.Login == nil {
		return connect.Login{}, auth.ErrNotFound
	}
	id := state.Login.ID
	credentials, err := r.store.Load(ctx, r.profile.Name)
	if err != nil {
		return connect.Login{ID: id}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.source == nil || r.id != id {
		r.id = id
		r.source = auth.NewSource(auth.SourceConfig{
			Store: r.store, LockDir: r.profile.CredentialsDir(), Name: r.profile.Name,
			Login: r.app.providerLogin(state.Login), Logger: r.app.logger(),
		})
	}
	return connect.Login{ID: id, Key: credentials.Key, Token: r.source.Token, Refresh: r.source.Refresh}, nil
}

func (a *app) store(p *profile.Profile) auth.Store {
	return auth.OpenStore(p.CredentialsDir(), a.env("IAP_KEYRING") != "off", a.logger())
}

// providerLogin is the provider as it was at login, so that renewing and revoking need no word from the relay.
func (a *app) providerLogin(l *profile.Login) *auth.Login {
	out := &auth.Login{
		Issuer: l.IssuerURL, ClientID: l.ClientID, ClientSecret: l.ClientSecret, Scopes: l.Scopes, Pick: l.Pick, Logger: a.logger(),
	}
	if l.Audience != "" {
		out.Params = map[string]string{"audience": l.Audience}
	}
	return out
}
