package auth

import (
	"context"
	"errors"
	"log/slog"
)

// CheckIssuers reports whether the configurations hold, each by itself and beside the
// others. It asks nobody.
func CheckIssuers(all []IssuerConfig) error {
	_, err := compileIssuers(all)
	return err
}

// CheckIssuer reports whether tokens of the issuer could be verified now: its
// configuration holds, its discovery document is its own and has keys. For
// commands that check a set-up; the Verifier does not need it.
func CheckIssuer(ctx context.Context, c IssuerConfig) error {
	if _, err := compileIssuers([]IssuerConfig{c}); err != nil {
		return err
	}
	keys, err := newKeySet(c, slog.New(slog.DiscardHandler)).fetch(ctx)
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return errors.New("the provider publishes no key that is strong enough to accept")
	}
	return nil
}
