package dev

import (
	"context"
	"crypto/subtle"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	// How long a person may look at the login page, and a client may keep a code.
	loginLifetime = 10 * time.Minute
	codeLifetime  = time.Minute
)

var (
	errNoUser    = errors.New("no such user, or disabled")
	errNoRequest = errors.New("no such login, or too late")
)

// store is the provider's memory and op's view of it (op.Storage). Devices and grants have files of their own.
type store struct {
	options ProviderOptions
	issuer  string
	keys    *keyring
	log     *slog.Logger
	clients map[string]*registered

	mu        sync.Mutex // guards all below
	users     []User
	logins    *shelf[*login]
	codes     *shelf[string] // authorization code → login
	devices   *shelf[*device]
	userCodes *shelf[string] // user code → device code
	grants    *shelf[*grant]
	tokens    *shelf[*accessToken]

	remembered map[string]time.Time // subject → when it signed in; see RememberLogin
	classes    map[string]string    // subject → acr of its last login
}

func newStore(o ProviderOptions, issuer string, keys *keyring) *store {
	s := &store{
		options: o, issuer: issuer, keys: keys, log: o.Logger, clients: map[string]*registered{}, remembered: map[string]time.Time{}, classes: map[string]string{}, users: slices.Clone(o.Users),
		logins: newShelf[*login](), codes: newShelf[string](), devices: newShelf[*device](), userCodes: newShelf[string](),
		grants: newShelf[*grant](), tokens: newShelf[*accessToken](),
	}
	for _, c := range o.Clients {
		if len(c.AccessAudience) == 0 {
			c.AccessAudience = []string{defaultAccessAudience}
		}
		s.clients[c.ID] = &registered{Client: c, idLifetime: o.IDLifetime}
	}
	return s
}

// --- users

// SetUser adds a user or replaces the one with that subject; the next token carries the new claims.
func (p *Provider) SetUser(u User) {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	for i := range p.store.users {
		if p.store.users[i].Subject == u.Subject {
			p.store.users[i] = u
			return
		}
	}
	p.store.users = append(p.store.users, u)
}

// DisableUser ends what a user may do here: no login, and each refresh answers invalid_grant. SetUser brings the user back.
func (p *Provider) DisableUser(subject string) {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	for i := range p.store.users {
		if p.store.users[i].Subject == subject {
			p.store.users[i].Disabled = true
		}
	}
}

func (s *store) userLocked(subject string) (User, error) {
	for _, u := range s.users {
		if u.Subject == subject && !u.Disabled {
			return u, nil
		}
	}
	return User{}, errNoUser
}

// enabledUsers is the list the pages offer.
func (s *store) enabledUsers() []User {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.users), func(u User) bool { return u.Disabled })
}

// authenticateLocked is the whole login: the person says who they are and, where the user has one, the password.
func (s *store) authenticateLocked(subject, password string) (User, error) {
	u, err := s.userLocked(subject)
	if err != nil {
		return User{}, err
	}
	if subtle.ConstantTimeCompare([]byte(u.Password), []byte(password)) != 1 {
		return User{}, errors.New("wrong password")
	}
	return u, nil
}

// --- authorization code flow

// login is one authorization request and, once done, who answered it. It is op.AuthRequest.
type login struct {
	id       string
	request  oidc.AuthRequest
	subject  string
	authTime time.Time
	amr      []string
	acr      string
	done     bool
}

func (l *login) GetID() string                      { return l.id }
func (l *login) GetACR() string                     { return l.acr }
func (l *login) GetAMR() []string                   { return l.amr }
func (l *login) GetAudience() []string              { return []string{l.request.ClientID} }
func (l *login) GetAuthTime() time.Time             { return l.authTime }
func (l *login) GetClientID() string                { return l.request.ClientID }
func (l *login) GetNonce() string                   { return l.request.Nonce }
func (l *login) GetRedirectURI() string             { return l.request.RedirectURI }
func (l *login) GetResponseType() oidc.ResponseType { return l.request.ResponseType }
func (l *login) GetResponseMode() oidc.ResponseMode { return l.request.ResponseMode }
func (l *login) GetScopes() []string                { return l.request.Scopes }
func (l *login) GetState() string                   { return l.request.State }
func (l *login) GetSubject() string                 { return l.subject }
func (l *login) Done() bool                         { return l.done }

func (l *login) GetCodeChallenge() *oidc.CodeChallenge {
	if l.request.CodeChallenge == "" {
		return nil
	}
	return &oidc.CodeChallenge{Challenge: l.request.CodeChallenge, Method: l.request.CodeChallengeMethod}
}

// CreateAuthRequest keeps what a browser asked for. Each client must use PKCE with S256 (RFC 9700, section 2.1.1).
func (s *store) CreateAuthRequest(_ context.Context, request *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	if slices.Contains(request.Prompt, oidc.PromptNone) {
		return nil, oidc.ErrLoginRequired()
	}
	if request.CodeChallenge == "" || request.CodeChallengeMethod != oidc.CodeChallengeMethodS256 {
		return nil, oidc.ErrInvalidRequest().WithDescription("this provider asks for PKCE with S256")
	}
	if request.ResponseMode != "" && request.ResponseMode != oidc.ResponseModeQuery {
		return nil, oidc.ErrInvalidRequest().WithDescription("response_mode query only")
	}
	l := &login{id: randomID(), request: *request}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins.put(l.id, l, time.Now().Add(loginLifetime))
	return l, nil
}

// AuthRequestByID returns a copy: op reads it without our lock.
func (s *store) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loginLocked(id)
}

func (s *store) loginLocked(id string) (*login, error) {
	l, ok := s.logins.get(id, time.Now())
	if !ok {
		return nil, errNoRequest
	}
	copied := *l
	return &copied, nil
}

func (s *store) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.codes.get(code, time.Now())
	if !ok {
		return nil, errNoRequest
	}
	return s.loginLocked(id)
}

func (s *store) SaveAuthCode(_ context.Context, id, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes.put(code, id, time.Now().Add(codeLifetime))
	return nil
}

// DeleteAuthRequest makes a code single-use: without its login it leads nowhere.
func (s *store) DeleteAuthRequest(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins.remove(id)
	return nil
}

// finishLogin records who signed in on the login page.
func (s *store) finishLogin(id, subject, password string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := s.loginLocked(id)
	if err != nil {
		return err
	}
	u, err := s.authenticateLocked(subject, password)
	if err != nil {
		return err
	}
	asked := wish{acr: l.request.ACRValues, again: slices.Contains(l.request.Prompt, oidc.PromptLogin)}
	if l.request.MaxAge != nil {
		age := time.Duration(*l.request.MaxAge) * time.Second
		asked.maxAge = &age
	}
	l.amr, l.acr, l.authTime = s.signInLocked(u, asked)
	l.subject, l.done = u.Subject, true
	s.logins.put(id, l, time.Now().Add(loginLifetime))
	return nil
}

// --- the rest of op.Storage

func (s *store) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if c, ok := s.clients[id]; ok {
		return c, nil
	}
	return nil, oidc.ErrInvalidClient().WithDescription("unknown client")
}

func (s *store) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	c, ok := s.clients[id]
	if !ok || c.Secret == "" || !c.accepts(secret) {
		return oidc.ErrInvalidClient().WithDescription("unknown client or wrong secret")
	}
	return nil
}

func (s *store) SigningKey(context.Context) (op.SigningKey, error) { return s.keys.current(), nil }
func (s *store) KeySet(context.Context) ([]op.Key, error)          { return s.keys.published(), nil }
func (s *store) Health(context.Context) error                      { return nil }

func (s *store) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{s.keys.current().algorithm}, nil
}

func (s *store) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errors.New("no client has a key here")
}

func (s *store) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errors.New("no JWT profile here")
}
