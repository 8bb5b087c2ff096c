package connect

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"iap/auth"
	"iap/tunnel"
)

// TestRefusedTokenNamesItsSourceAndTheCause: where no login gives the tokens, none would help.
func TestRefusedTokenNamesItsSourceAndTheCause(t *testing.T) {
	refusal := func(code tunnel.Code, message string) error {
		return &tunnel.DialError{Stage: "handshake", Code: code, Err: &tunnel.Refusal{Code: code, Message: message}}
	}
	for name, c := range map[string]struct {
		source string
		err    error
		code   string
		says   string
	}{
		"expired":           {"IAP_TOKEN_FILE", refusal(tunnel.CodeTokenInvalid, "the token has expired (token_expired)"), "token_expired", "the token has expired: check IAP_TOKEN_FILE"},
		"too old":           {"IAP_TOKEN_COMMAND", refusal(tunnel.CodeTokenInvalid, "the token was issued 2h0m0s ago (token_too_old)"), "token_too_old", "check IAP_TOKEN_COMMAND"},
		"revoked":           {"IAP_TOKEN_FILE", refusal(tunnel.CodeRevoked, "this token was refused by an administrator"), "revoked", "by an administrator: check IAP_TOKEN_FILE"},
		"silent":            {"IAP_TOKEN_FILE", refusal(tunnel.CodeTokenInvalid, ""), "token_invalid", "check IAP_TOKEN_FILE"},
		"no code in it":     {"IAP_TOKEN_FILE", refusal(tunnel.CodeTokenInvalid, "not so (Really Not)"), "token_invalid", "not so (Really Not): check"},
		"of a login":        {"", refusal(tunnel.CodeTokenInvalid, "the token has expired (token_expired)"), "login_required", "iapctl login"},
		"relay is shutting": {"IAP_TOKEN_FILE", refusal(tunnel.CodeRelayShutdown, "later"), "relay_unreachable", "try again"},
	} {
		err := tokenRefused(c.source, c.err)
		if got := refusalOf(err, "phi3"); got.code != c.code || !strings.Contains(got.message, c.says) {
			t.Errorf("%s: %+v", name, got)
		}
		if NeedsLogin(err) != NeedsLogin(c.err) || tunnel.CodeOf(err) != tunnel.CodeOf(c.err) {
			t.Errorf("%s: what it is has changed: %v", name, err)
		}
	}
	none := &auth.LoginError{Code: auth.CodeTokenUnavailable, Public: "the token file could not be read"}
	if err := tokenRefused("IAP_TOKEN_FILE", none); !errors.Is(err, none) || refusalOf(err, "phi3").status != http.StatusServiceUnavailable {
		t.Errorf("a source that cannot be read: %+v", refusalOf(err, "phi3"))
	}
}
