// Package auth knows who someone is: it logs people in, keeps their credentials and
// keys, and turns a token into a verified Principal.
//
// It exists so that all trust in tokens stands in one place. The libraries below it
// (go-oidc, x/oauth2) leave much to their caller: audiences of two doors, azp, iat,
// token types, duplicate JSON names, forgotten keys, floods of unknown key ids,
// connections lost while polling. What they leave is done here, and nowhere else is
// a token parsed.
//
// # The relay's side
//
// A Verifier holds the configured issuers. Verify takes a token through
//
//	parseCompact    strict base64url, one JSON object each, no name twice   compact.go
//	checkHeader     algorithm and type, from the issuer's lists             rules.go
//	checkSignature  go-oidc over our own key set                            keyset.go, jwks.go
//	checkKind       no refresh, logout or foreign-bound tokens              rules.go
//	checkTimes      exp, nbf, iat with 30 s of skew; lifetime and age       rules.go
//	checkAudience   ours at this door, and nobody's beside it               rules.go
//	checkParty      azp, client_id: issued to a client we know              rules.go
//	readPrincipal   subject, groups, claims, MFA                            identity.go
//
// and returns a Token or a *TokenError with a stable code. VerifyLogout does the same
// for what a provider posts when a login has ended (logout.go). A provider of people and
// programs is two issuers with one URL, told apart by audience (sharedissuer.go).
//
// # The client's side
//
// Login obtains tokens: Device (RFC 8628), Browser (authorization code with PKCE),
// Refresh, Revoke (RFC 7009). A Store keeps Credentials in the system keyring or in
// files of mode 0600. A Source presents a token whenever a session needs one, from
// IAP_TOKEN_FILE, from IAP_TOKEN_COMMAND or from a Store, and refreshes it once for
// all processes that share it. Errors are *LoginError: a code, a sentence and the
// next command to type.
//
// # Formats
//
// The nonce that binds a token to a session key (NonceForKey):
//
//	base64url(SHA-256("iap-session-key-v1" || Ed25519 public key))
//
// Bytes that are signed or hashed for joining are a domain and fields, each behind
// its length as 32 bits, big-endian:
//
//	"iap-join-request-v1"  relay, token id, agent id, agent key, nonce             signed by the agent
//	"iap-join-reply-v1"    relay, token id, agent id, agent key, relay key, nonce  signed by the relay
//	"iap-join-secret-v1"   token id, secret                                        SHA-256, kept by the relay
//
// A join token is "iapjoin1." and the unpadded base64url of a JSON object with the
// members of JoinToken; byte strings in it are base64.
//
// A key for a program (ProgramKey) is "iapk_", an id, a secret of 256 bits and a
// checksum, in lower-case base32; the relay keeps the secret's hash.
//
// Keys on disk are PKCS #8 in PEM. Stored credentials are the JSON of Credentials.
package auth
