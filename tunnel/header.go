package tunnel

// A Header opens a stream, and each further request on a warm one. On the wire: a length of four bytes, big endian,
// then JSON of at most 16 KiB.
type Header struct {
	Service   string `json:"service,omitzero"` // "" a resource; "api" the relay's own API
	Resource  string `json:"resource,omitzero"`
	Kind      string `json:"kind,omitzero"`
	Request   string `json:"request,omitzero"` // request id
	Session   string `json:"session,omitzero"` // the user session it came by
	Principal string `json:"principal,omitzero"`
	Action    string `json:"action,omitzero"`
	Model     string `json:"model,omitzero"`
	Method    string `json:"method,omitzero"`
	Path      string `json:"path,omitzero"`
	Grant     string `json:"grant,omitzero"`
	Priority  int    `json:"priority,omitzero"`
	TimeoutMS int64  `json:"timeout_ms,omitzero"` // what it may still take; 0 no limit. A duration, since clocks differ
	Local     *Local `json:"local,omitzero"`
	Seq       uint64 `json:"seq,omitzero"` // set by the session
	MAC       []byte `json:"mac,omitzero"` // set by the session
}

// Local carries the rules of a user's local listener to the relay, where the guard applies them to each request.
type Local struct {
	AllowOrigins []string `json:"allow_origins,omitempty"`
	AllowHosts   []string `json:"allow_hosts,omitempty"`
	KeyHash      []byte   `json:"key_hash,omitempty"` // SHA-256 of the local key; none if empty
	Listen       string   `json:"listen,omitzero"`
}

// EndedTrailer is the HTTP trailer in which an agent says the code of an error that it put into an answer that had begun.
const EndedTrailer = "X-Iap-Ended"

// A Reply answers a Header: four bytes of length, then JSON of at most 16 KiB.
type Reply struct {
	OK           bool   `json:"ok"`
	Code         string `json:"code,omitzero"`
	Message      string `json:"message,omitzero"`
	RetryAfterMS int64  `json:"retry_after_ms,omitzero"`
	// NotSent says of a refusal that no byte of the request has left for the upstream, so that it may be tried
	// elsewhere. It is sealed: on a session with an agent a claim whose MAC does not hold reads as false, and so it
	// does on every other session. A reply that does not say so, or none, means that the request may have been sent.
	NotSent bool   `json:"not_sent,omitzero"`
	MAC     []byte `json:"mac,omitzero"` // set by the session
}
