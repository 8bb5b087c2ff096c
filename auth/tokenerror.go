package auth

import "fmt"

// Codes of a TokenError. They are stable: logs, audit records and clients hold them.
const (
	CodeTokenMalformed     = "token_malformed"
	CodeClaimsDuplicate    = "claims_duplicate"
	CodeClaimsInvalid      = "claims_invalid"
	CodeIssuerUnknown      = "issuer_unknown"
	CodeIssuerUnavailable  = "issuer_unavailable"
	CodeAlgorithmRefused   = "algorithm_refused"
	CodeTypeRefused        = "type_refused"
	CodeSignatureInvalid   = "signature_invalid"
	CodeAudienceMismatch   = "audience_mismatch"
	CodePartyMismatch      = "azp_mismatch"
	CodeTokenExpired       = "token_expired"
	CodeTokenNotYetValid   = "token_not_yet_valid"
	CodeTokenTooOld        = "token_too_old"
	CodeTokenLifetime      = "token_lifetime"
	CodeSubjectInvalid     = "subject_invalid"
	CodeBindingUnsupported = "token_bound_elsewhere"
)

// TokenError is why a token was refused. Public may be shown to whoever presented
// the token: it repeats nothing of the token. Err is for the relay's own log.
type TokenError struct {
	Code   string
	Public string
	Err    error
}

func (e *TokenError) Error() string {
	if e.Err == nil {
		return "verify token: " + e.Code
	}
	return fmt.Sprintf("verify token: %s: %v", e.Code, e.Err)
}

func (e *TokenError) Unwrap() error { return e.Err }

// refuse makes a TokenError; the public sentence follows from the code.
func refuse(code, format string, args ...any) *TokenError {
	return &TokenError{Code: code, Public: publicSentence(code), Err: fmt.Errorf(format, args...)}
}

func publicSentence(code string) string {
	switch code {
	case CodeIssuerUnknown:
		return "the token's issuer is not one this relay trusts"
	case CodeIssuerUnavailable:
		return "the identity provider's keys are not available; try again in a moment"
	case CodeAlgorithmRefused:
		return "the token's signature algorithm is not accepted"
	case CodeTypeRefused:
		return "this kind of token is not accepted"
	case CodeSignatureInvalid:
		return "the token's signature does not hold"
	case CodeAudienceMismatch:
		return "the token was not issued for this relay"
	case CodePartyMismatch:
		return "the token was issued to a client this relay does not know"
	case CodeTokenExpired:
		return "the token has expired"
	case CodeTokenNotYetValid:
		return "the token is not valid yet"
	case CodeTokenTooOld, CodeTokenLifetime:
		return "the token is older or lives longer than this relay accepts"
	case CodeSubjectInvalid:
		return "the token's subject is not acceptable"
	case CodeBindingUnsupported:
		return "the token is bound to a key this relay cannot check"
	case CodeLogoutInvalid:
		return "this is no logout token"
	case CodeLogoutTooOld:
		return "the logout token is too old"
	default:
		return "the token is not well formed"
	}
}
