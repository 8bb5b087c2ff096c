package connect

import (
	"context"
	"errors"

	"iap/auth"
	"iap/tunnel"
)

// ErrRelayChanged marks an error of Config.CheckRelay: the relay's key is not the one remembered.
var ErrRelayChanged = errors.New("relay key differs from the remembered one")

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
