package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"golang.org/x/oauth2"
)

// Codes of a LoginError.
const (
	CodeLoginRequired       = "login_required"       // nobody is logged in, or the login has ended
	CodeLoginDenied         = "login_denied"         // the person or the provider said no
	CodeLoginExpired        = "login_expired"        // the device code ran out
	CodeLoginMethodBlocked  = "login_method_blocked" // the provider does not allow this way of logging in
	CodeLoginTimeout        = "login_timeout"
	CodeLoginCanceled       = "login_canceled"
	CodeLoginFailed         = "login_failed"
	CodeProviderUnreachable = "provider_unreachable"
	CodeProviderMisbehaves  = "provider_invalid" // its answers contradict the protocol
	CodeClientRefused       = "client_refused"   // the provider does not know this client, or wants its secret
	CodeRefreshRefused      = "refresh_refused"  // the provider has ended the grant: revoked, expired, user disabled
	CodeBrowserUnavailable  = "browser_unavailable"
	CodeTokenUnavailable    = "token_unavailable" // IAP_TOKEN_FILE or IAP_TOKEN_COMMAND gave none
	CodeStoreFailed         = "store_failed"
)

// LoginError is why there is no token: a stable code, a sentence for a person, and
// the next command to type. Err holds the cause for -v and for errors.Is.
type LoginError struct {
	Code   string
	Public string
	Hint   string
	Err    error
}

func (e *LoginError) Error() string {
	if e.Err == nil {
		return e.Public
	}
	return fmt.Sprintf("%s: %v", e.Public, e.Err)
}

func (e *LoginError) Unwrap() error { return e.Err }

// ErrNoRevocation says that the provider has no revocation endpoint: its tokens
// live until they expire.
var ErrNoRevocation = errors.New("provider has no revocation endpoint")

// answerError is a provider's refusal (RFC 6749 section 5.2), fit to print: x/oauth2's
// own error quotes the whole body.
type answerError struct {
	status      int
	code        string
	description string
	numbers     []int // Entra's error_codes, "AADSTS…"
}

func (e *answerError) Error() string {
	switch {
	case e.code == "":
		return fmt.Sprintf("provider answered with status %d", e.status)
	case e.description == "":
		return fmt.Sprintf("provider answered %s", e.code)
	default:
		return fmt.Sprintf("provider answered %s: %s", e.code, e.description)
	}
}

// answerOf returns the provider's refusal in err, or nil if no answer came.
func answerOf(err error) *answerError {
	var r *oauth2.RetrieveError
	if !errors.As(err, &r) {
		return nil
	}
	a := &answerError{code: displayText(r.ErrorCode, maxDisplay), description: displayText(r.ErrorDescription, maxDisplay)}
	if r.Response != nil {
		a.status = r.Response.StatusCode
	}
	var body struct {
		Numbers []int `json:"error_codes"`
	}
	if json.Unmarshal(r.Body, &body) == nil {
		a.numbers = body.Numbers
	}
	return a
}

// temporary says that the answer is about the moment, not about the request.
func (e *answerError) temporary() bool {
	return e.status >= http.StatusInternalServerError || // whatever code its body has: a gateway may have made it up
		e.code == "" && (e.status == http.StatusTooManyRequests || e.status == http.StatusRequestTimeout) ||
		e.code == "temporarily_unavailable" || e.code == "server_error"
}

// blockedMethod says that the provider refuses device codes rather than this login.
// Entra answers a policy of its administrator with invalid_grant or access_denied
// and only its number tells.
func (e *answerError) blockedMethod() bool {
	return e.code == "unauthorized_client" || e.code == "unsupported_grant_type" || slices.ContainsFunc(e.numbers, blockedByEntra)
}

// blockedByEntra knows the numbers that a login in the browser may get around:
// conditional access (53000 to 53011, 530000 to 530999), a device that has to show
// itself (50097, 50131), a flow that needs a page (50199), and public client flows
// switched off (7000218).
func blockedByEntra(n int) bool {
	switch n {
	case 50097, 50131, 50199, 7000218:
		return true
	}
	return n >= 53000 && n <= 53011 || n >= 530000 && n <= 530999
}

func methodBlocked(err error) *LoginError {
	return &LoginError{
		Code: CodeLoginMethodBlocked, Public: "the provider does not allow logging in with a device code",
		Hint: "iapctl login --browser", Err: err,
	}
}

// contextEnded turns the end of ctx into a LoginError; nil if ctx has not ended.
func contextEnded(ctx context.Context) *LoginError {
	switch err := ctx.Err(); {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return &LoginError{Code: CodeLoginTimeout, Public: "the login took too long", Hint: "iapctl login", Err: err}
	default:
		return &LoginError{Code: CodeLoginCanceled, Public: "the login was cancelled", Err: err}
	}
}

// requestFailed is the error of a request that got no refusal: no answer at all, or
// one that cannot be read.
func requestFailed(ctx context.Context, err error) *LoginError {
	if ended := contextEnded(ctx); ended != nil {
		return ended
	}
	var refused *answerError
	if errors.As(err, &refused) && refused.temporary() {
		return inTrouble(err)
	}
	var transport *url.Error
	if errors.As(err, &transport) && !errors.Is(err, errRedirect) {
		return &LoginError{Code: CodeProviderUnreachable, Public: "the identity provider cannot be reached", Hint: "check the network and try again", Err: err}
	}
	return &LoginError{Code: CodeProviderMisbehaves, Public: "the identity provider's answer makes no sense", Hint: "check the issuer in the relay's configuration", Err: err}
}

// grantFailed is the error of a request for tokens or for a device code, from a
// refusal or from its absence.
func grantFailed(ctx context.Context, err error) *LoginError {
	a := answerOf(err)
	switch {
	case a == nil:
		return requestFailed(ctx, err)
	case a.temporary():
		return inTrouble(a)
	case a.code == "": // a page of a proxy or of a portal: nobody has said no to the login
		return &LoginError{Code: CodeProviderMisbehaves, Public: "the identity provider's answer makes no sense", Hint: "check the network and try again", Err: a}
	case a.code == "access_denied":
		return &LoginError{Code: CodeLoginDenied, Public: "the login was denied", Err: a}
	case a.code == "expired_token":
		return loginExpired(a)
	case a.code == "invalid_client":
		return &LoginError{Code: CodeClientRefused, Public: "the identity provider refuses this client", Hint: "check client_id and public_client_secret of the issuer on the relay", Err: a}
	default:
		return &LoginError{Code: CodeLoginFailed, Public: "the identity provider refused the login", Err: a}
	}
}

func inTrouble(err error) *LoginError {
	return &LoginError{Code: CodeProviderUnreachable, Public: "the identity provider is in trouble", Hint: "try again in a moment", Err: err}
}

func loginExpired(err error) *LoginError {
	return &LoginError{Code: CodeLoginExpired, Public: "the code expired before the login was finished", Hint: "iapctl login", Err: err}
}
