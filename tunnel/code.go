package tunnel

import "strconv"

// A Code says why a stream or a session ended or was refused. Numbers and texts are part of the wire format: a
// number travels in the Length field of an RST frame, a text in JSON. Numbers are never reused.
type Code uint32

// The codes. Append only.
const (
	CodeNone                Code = 0
	CodeCanceled            Code = 1  // whoever asked went away
	CodePolicyDenied        Code = 2  // the policy says no
	CodePolicyChanged       Code = 3  // the policy said yes once, and no longer does
	CodeRevoked             Code = 4  // the session, its key or its principal was revoked
	CodeSessionExpired      Code = 5  // the token behind the session ran out
	CodeUpstreamReset       Code = 6  // the upstream broke off
	CodeUpstreamUnreachable Code = 7  // the upstream could not be dialled
	CodeAgentOffline        Code = 8  // no agent for the resource
	CodeRelayShutdown       Code = 9  // the relay is going away
	CodeLimitReached        Code = 10 // a rate, concurrency or token limit
	CodeProtocolError       Code = 11 // the peer broke the protocol
	CodeTimeout             Code = 12 // something took too long
	CodeInternal            Code = 13 // a fault on our side
	CodeRefused             Code = 14 // refused without a more telling code
	CodeTooManyStreams      Code = 15 // the cap of open streams
	CodeUnknownResource     Code = 16 // no such resource
	CodeBadMAC              Code = 17 // a stream header that its session did not seal
	CodeReplayed            Code = 18 // a stream header that was seen before
	CodeLoginRequired       Code = 19 // a new login is needed
	CodeTokenInvalid        Code = 20 // the token was not accepted
	CodePopFailed           Code = 21 // the proof of possession of the key failed
	CodeAuditUnavailable    Code = 22 // no record, no request
	CodeVersionMismatch     Code = 23 // the two ends speak different versions
	CodeBindingRefused      Code = 24 // the channel binding is weaker than demanded
	CodeStateUnavailable    Code = 25 // the relay cannot reach its state
	CodeNotAnnounced        Code = 26 // the agent does not offer the resource
	CodeOverloaded          Code = 27 // too much at once; later, perhaps
	CodeProxyAuthRequired   Code = 28 // the HTTP proxy wants credentials
	CodeProxyRefused        Code = 29 // the HTTP proxy refused to connect
	CodeDead                Code = 30 // the peer fell silent or the connection broke
	CodeRelayUntrusted      Code = 31 // the relay could not prove who it is
	CodeNameMismatch        Code = 32 // the relay does not answer to the name that was dialled
	CodeQueueFull           Code = 33 // the agent's queue for the resource is full, or the wait in it was too long
	CodeDraining            Code = 34 // the agent is stopping and takes no new requests
)

// codeTexts is indexed by Code and never written to.
var codeTexts = [...]string{
	CodeNone:                "none",
	CodeCanceled:            "canceled",
	CodePolicyDenied:        "policy_denied",
	CodePolicyChanged:       "policy_changed",
	CodeRevoked:             "revoked",
	CodeSessionExpired:      "session_expired",
	CodeUpstreamReset:       "upstream_reset",
	CodeUpstreamUnreachable: "upstream_unreachable",
	CodeAgentOffline:        "agent_offline",
	CodeRelayShutdown:       "relay_shutdown",
	CodeLimitReached:        "limit_reached",
	CodeProtocolError:       "protocol_error",
	CodeTimeout:             "timeout",
	CodeInternal:            "internal",
	CodeRefused:             "refused",
	CodeTooManyStreams:      "too_many_streams",
	CodeUnknownResource:     "unknown_resource",
	CodeBadMAC:              "bad_mac",
	CodeReplayed:            "replayed",
	CodeLoginRequired:       "login_required",
	CodeTokenInvalid:        "token_invalid",
	CodePopFailed:           "pop_failed",
	CodeAuditUnavailable:    "audit_unavailable",
	CodeVersionMismatch:     "version_mismatch",
	CodeBindingRefused:      "binding_refused",
	CodeStateUnavailable:    "state_unavailable",
	CodeNotAnnounced:        "not_announced",
	CodeOverloaded:          "overloaded",
	CodeProxyAuthRequired:   "proxy_auth_required",
	CodeProxyRefused:        "proxy_refused",
	CodeDead:                "connection_lost",
	CodeRelayUntrusted:      "relay_untrusted",
	CodeNameMismatch:        "name_mismatch",
	CodeQueueFull:           "queue_full",
	CodeDraining:            "draining",
}

// String gives the stable text of c; a number that this version does not know reads code_N.
func (c Code) String() string {
	if int64(c) < int64(len(codeTexts)) {
		return codeTexts[c]
	}
	return "code_" + strconv.FormatUint(uint64(c), 10)
}

// ParseCode is the inverse of String; a text that this version does not know is CodeNone.
func ParseCode(text string) Code {
	for c, t := range codeTexts {
		if t == text {
			return Code(c)
		}
	}
	return CodeNone
}
