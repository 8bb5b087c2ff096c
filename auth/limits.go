package auth

import "time"

// Every size and deadline of the package, and why it has its value.
const (
	maxTokenBytes  = 16 << 10 // tokens with hundreds of groups stay below; one hello carries at most 64 KiB
	maxClaimValues = 1000     // members read of one array claim; a token of 16 KiB holds hardly more
	maxDisplay     = 256      // bytes of a name shown or logged
	maxAddress     = 8 << 10  // of an address shown or opened; what browsers take without trouble

	clockSkew        = 30 * time.Second // between provider and relay; Google's IAP allows the same
	maxTokenLifetime = 24 * time.Hour   // exp - iat: a token that lives longer is a password
	latestTime       = 1 << 40          // seconds: beyond it time arithmetic stops meaning anything

	maxDocumentBytes = 1 << 20 // discovery, JWKS and token answers; real ones are below 64 KiB
	maxKeys          = 100     // in one JWKS; the largest provider publishes a dozen
	maxKeysTried     = 8       // for one signature: keys without an id, or sharing one
	minRSABits       = 2048    // RFC 7518 section 3.3
	maxRSABits       = 8192    // above it a verification costs milliseconds
	maxRedirects     = 3       // within the same host

	providerTimeout = 5 * time.Second  // discovery and JWKS: a login waits for it at most once
	loginTimeout    = 30 * time.Second // one answer of the token endpoint; providers behind MFA are slow

	keysRefresh      = 5 * time.Minute  // a removed key is forgotten after at most this long
	keysMinInterval  = 10 * time.Second // between two JWKS fetches, whatever asks for them
	keysRetryMin     = time.Second      // after a failed discovery, doubling …
	keysRetryMax     = 30 * time.Second // … to this
	keysMaxAge       = 24 * time.Hour   // keys not confirmed for so long are not used any more
	unknownKeyMemory = time.Minute      // a key id the provider did not have is not asked for again
	maxUnknownKeys   = 1024             // remembered ids; above it the memory starts anew

	devicePollDefault = 5 * time.Second  // RFC 8628 section 3.2
	devicePollStep    = 5 * time.Second  // RFC 8628 section 3.5, slow_down
	devicePollMax     = 60 * time.Second // bound of the back-off on lost connections
	deviceLifetime    = 15 * time.Minute // where the provider forgets expires_in
	deviceLifetimeMax = time.Hour        // whatever the provider says
	maxUserCode       = 64               // characters shown

	browserTimeout  = 5 * time.Minute // to finish a login in the browser
	callbackTimeout = 5 * time.Second // to read one request on the loopback port
	callbackDrain   = time.Second     // for the browser to take the last page
	openerTimeout   = 2 * time.Second // for the browser's opener to fail

	refreshGrace   = 5 * time.Second // for the answer to an exchange whose caller has left
	tokenFresh     = time.Minute     // a token with less left is refreshed before use
	lockPoll       = 50 * time.Millisecond
	commandTimeout = 30 * time.Second // IAP_TOKEN_COMMAND
	commandLinger  = time.Second      // for its children that keep the pipe open
	keyringTimeout = 5 * time.Second  // a keyring may ask its user; headless ones hang
	maxSecretBytes = 256 << 10        // a file of credentials

	maxJoinToken     = 16 << 10
	maxJoinResources = 64
	maxJoinLabels    = 32
)
