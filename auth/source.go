package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// SourceConfig says where a token comes from: the first of TokenFile, TokenCommand
// and Store that is set.
type SourceConfig struct {
	TokenFile    string // IAP_TOKEN_FILE, read anew at each use
	TokenCommand string // IAP_TOKEN_COMMAND, run at each use; see splitCommand for its words
	Store        Store
	LockDir      string // where the refresh lock lives; required with Store and Login
	Name         string // of the credentials in Store
	Login        *Login // refreshes them; nil: never refreshed
	Logger       *slog.Logger
	Now          func() time.Time
}

// Source presents a token whenever one is needed. It is safe for concurrent use.
type Source struct {
	SourceConfig

	mu      sync.Mutex
	unsaved *Credentials // refreshed, but the store did not take them
}

// NewSource makes a Source; it touches nothing yet.
func NewSource(c SourceConfig) *Source {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Source{SourceConfig: c}
}

// Token returns a token that is good for another minute, refreshing the stored one
// if it is not. Errors are of type *LoginError.
func (s *Source) Token(ctx context.Context) (string, error) {
	switch {
	case s.TokenFile != "":
		return s.fromFile()
	case s.TokenCommand != "":
		return s.fromCommand(ctx)
	}
	c, err := s.load(ctx)
	if err != nil {
		return "", err
	}
	if s.fresh(c.Tokens) {
		return c.Tokens.Token, nil
	}
	token, err := s.refresh(ctx, c.Tokens.Token)
	var failed *LoginError
	if errors.As(err, &failed) && failed.Code == CodeProviderUnreachable && s.Now().Before(c.Tokens.Expires) {
		return c.Tokens.Token, nil // still good for seconds, and nothing better is to be had
	}
	return token, err
}

// Refresh returns a token newer than the present one. Processes that share a store
// refresh once: some providers revoke the whole grant when an old refresh token
// comes back (RFC 9700 section 4.14.2).
func (s *Source) Refresh(ctx context.Context) (string, error) {
	if s.TokenFile != "" || s.TokenCommand != "" {
		return s.Token(ctx)
	}
	c, err := s.load(ctx)
	if err != nil {
		return "", err
	}
	return s.refresh(ctx, c.Tokens.Token)
}

// refresh takes the lock and reads once more: if the token is not the stale one any
// more, another process has refreshed it already.
func (s *Source) refresh(ctx context.Context, stale string) (token string, err error) {
	if s.Login == nil {
		return "", loginRequired("the login has expired", nil)
	}
	lockErr := WithLock(ctx, s.LockDir, s.Name, func() error {
		c, lerr := s.load(ctx)
		switch {
		case lerr != nil:
			err = lerr
		case c.Tokens.Token != stale && s.fresh(c.Tokens):
			token = c.Tokens.Token
		default:
			token, err = s.renew(ctx, c)
		}
		return nil
	})
	if lockErr != nil {
		return "", &LoginError{Code: CodeStoreFailed, Public: "the stored login could not be locked", Err: lockErr}
	}
	return token, err
}

// renew exchanges the refresh token and saves the answer before anybody uses it: a
// rotated refresh token that is lost ends the login.
func (s *Source) renew(ctx context.Context, c Credentials) (string, error) {
	if c.Tokens.RefreshToken == "" {
		return "", loginRequired("the login has expired and the provider gave no refresh token", nil)
	}
	next, err := s.Login.Refresh(ctx, c.Tokens.RefreshToken)
	if err != nil {
		return "", err
	}
	if c.Tokens.Subject != "" && next.Subject != "" && next.Subject != c.Tokens.Subject {
		return "", &LoginError{Code: CodeRefreshRefused, Public: "the provider answered for another user", Hint: "iapctl login"}
	}
	c.Tokens = next.keep(c.Tokens)
	s.save(ctx, c)
	return c.Tokens.Token, nil
}

// save keeps credentials in memory that the store does not take, and tries again at
// the next load; the caller's token is good in any case.
func (s *Source) save(ctx context.Context, c Credentials) {
	// The exchange has happened: its result is saved even if the caller has left.
	err := s.Store.Save(context.WithoutCancel(ctx), s.Name, c)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsaved = nil
	if err != nil {
		s.unsaved = &c
		s.Logger.Error("refreshed login not saved", "store", s.Store.Where(), "error", err)
	}
}

func (s *Source) load(ctx context.Context) (Credentials, error) {
	if s.Store == nil {
		return Credentials{}, loginRequired("nobody is logged in", nil)
	}
	s.mu.Lock()
	unsaved := s.unsaved
	s.mu.Unlock()
	if unsaved != nil {
		s.save(ctx, *unsaved)
		return *unsaved, nil
	}
	c, err := s.Store.Load(ctx, s.Name)
	switch {
	case errors.Is(err, ErrNotFound):
		return Credentials{}, loginRequired("nobody is logged in", err)
	case err != nil:
		return Credentials{}, &LoginError{Code: CodeStoreFailed, Public: "the stored login could not be read", Hint: "iapctl login", Err: err}
	case c.Tokens.Token == "":
		return Credentials{}, loginRequired("nobody is logged in", nil)
	}
	return c, nil
}

// fresh says whether a token is worth presenting; one without a known end is, until
// somebody asks for a newer one.
func (s *Source) fresh(t Tokens) bool {
	return t.Expires.IsZero() || s.Now().Add(tokenFresh).Before(t.Expires)
}

func loginRequired(public string, err error) *LoginError {
	return &LoginError{Code: CodeLoginRequired, Public: public, Hint: "iapctl login", Err: err}
}

// fromFile reads the file at each use: Kubernetes and CI systems replace it. Its mode
// is theirs to choose.
func (s *Source) fromFile() (string, error) {
	f, err := os.Open(s.TokenFile)
	if err == nil {
		defer f.Close()
		var data []byte
		if data, err = readBounded(f, s.TokenFile, maxTokenBytes+2); err == nil {
			return oneToken("token file "+s.TokenFile, data)
		}
	}
	return "", &LoginError{Code: CodeTokenUnavailable, Public: "the token file could not be read", Hint: "check IAP_TOKEN_FILE", Err: err}
}

// oneToken trims the line break that files and commands end with.
func oneToken(origin string, data []byte) (string, error) {
	token := strings.TrimSpace(string(data))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", &LoginError{
			Code: CodeTokenUnavailable, Public: "there is no token where one was expected",
			Hint: "it must hold one token and nothing else", Err: fmt.Errorf("%s: not one token", origin),
		}
	}
	return token, nil
}
