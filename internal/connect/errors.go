package connect

import (
	"context"
	"errors"
	"strings"

	"iap/auth"
	"iap/tunnel"
)

// ErrRelayChanged marks an error of Config.CheckRelay: the relay's key is not the one remembered.
var ErrRelayChanged = errors.New("relay key differs from the remembered one")

// A TokenRefusedError is the relay's refusal of a token that no login gave. Nobody at this machine can log in instead: whatever
// fills its source must.
type TokenRefusedError struct {
	Source string // "IAP_TOKEN_FILE"
	Code   string // why, "token_expired", or the tunnel's code where the relay says no more
	What   string // the relay's words
	Err    error
}

func (e *TokenRefusedError) Error() string { return e.Source + ": " + e.Err.Error() }
func (e *TokenRefusedError) Unwrap() error { return e.Err }

// tokenRefused names the source in an error that a person would cure by a login.
func tokenRefused(source string, err error) error {
	var no *tunnel.Refusal
	if source == "" || !NeedsLogin(err) || !errors.As(err, &no) {
		return err
	}
	e := &TokenRefusedError{Source: source, Code: no.Code.String(), What: no.Message, Err: err}
	// The relay has the verifier's code at the end of its words: "the token has expired (token_expired)".
	if what, code, ok := strings.Cut(strings.TrimSuffix(no.Message, ")"), " ("); ok && isCode(code) {
		e.What, e.Code = what, code
	}
	if e.What == "" {
		e.What = "the relay refuses the token"
	}
	return e
}

func isCode(text string) bool {
	return text != "" && len(text) <= 40 && strings.Trim(text, "abcdefghijklmnopqrstuvwxyz_") == ""
}

// NeedsLogin reports whether only a new login can help.
func NeedsLogin(err error) bool {
	var login *auth.LoginError
	if errors.As(err, &login) {
		switch login.Code {
		case auth.CodeProviderUnreachable, auth.CodeProviderMisbehaves, auth.CodeTokenUnavailable, auth.CodeStoreFailed:
			return false // the provider or the token's source may come back
		}
		return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
	}
	if errors.Is(err, auth.ErrNotFound) {
		return true
	}
	switch tunnel.CodeOf(err) {
	case tunnel.CodeLoginRequired, tunnel.CodeTokenInvalid, tunnel.CodePopFailed, tunnel.CodeRevoked:
		return true
	}
	return false
}

// needsPerson reports whether trying again by itself is pointless: a login, an update or a decision of the user is needed.
func needsPerson(err error) bool {
	switch tunnel.CodeOf(err) {
	case tunnel.CodeBindingRefused, tunnel.CodeVersionMismatch, tunnel.CodeRelayUntrusted, tunnel.CodeNameMismatch:
		return true
	}
	return NeedsLogin(err) || errors.Is(err, ErrRelayChanged)
}
