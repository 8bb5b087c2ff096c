package diag

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
)

// redacted stands where a secret was.
const redacted = "[redacted]"

// leastSecret is how long a value must be to be looked for: shorter ones occur by
// chance everywhere.
const leastSecret = 6

// A Redactor takes secrets out of text: those it was told, however they are
// written, and what has the form of one.
type Redactor struct {
	known  [][]byte // longest first
	shapes []shape
}

type shape struct {
	form *regexp.Regexp
	with string
}

// NewRedactor knows the forms of secrets, and none of their values yet.
func NewRedactor() *Redactor {
	return &Redactor{shapes: []shape{
		{regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\z)`), redacted},
		{regexp.MustCompile(`\A[A-Za-z0-9+/=\s]*-----END [A-Z ]*PRIVATE KEY-----`), redacted},
		{regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]+){1,4}`), redacted}, // JWS and JWE
		{regexp.MustCompile(`\b(iapk_|iapjoin1\.|iapl_|sk-|ghp_|gho_|github_pat_|glpat-|hf_|xox[a-z]-)[A-Za-z0-9_.=-]{8,}`), redacted},
		{regexp.MustCompile(`(?i)\b(bearer|basic|negotiate)[ \t]+[A-Za-z0-9._~+/=-]{6,}`), "$1 " + redacted},
		{regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/?#"'<>@]*@`), "$1" + redacted + "@"},
		{regexp.MustCompile(`(?i)((?:token|secret|passw(?:or)?d|api_?-?key|local_?key|authorization|cookie|code_verifier|signature|private_?key|access_?key)"?[ \t]*[:=][ \t]*"?)[^\s"',;&}\]]{3,}`), "$1" + redacted},
	}}
}

// Know adds a secret, to be taken out in each spelling in which it may be met:
// as it is, in JSON, in a URL, in base64 and in hexadecimal.
func (r *Redactor) Know(secrets ...string) {
	for _, s := range secrets {
		if len(s) < leastSecret {
			continue
		}
		quoted, _ := json.Marshal(s) // a string always can be
		for _, spelling := range []string{
			s, string(quoted[1 : len(quoted)-1]), url.QueryEscape(s), url.PathEscape(s), hex.EncodeToString([]byte(s)),
			base64.RawStdEncoding.EncodeToString([]byte(s)), base64.RawURLEncoding.EncodeToString([]byte(s)),
		} {
			r.known = append(r.known, []byte(spelling))
		}
	}
	slices.SortFunc(r.known, func(a, b []byte) int { return len(b) - len(a) })
}

// Bytes is text without secrets.
func (r *Redactor) Bytes(text []byte) []byte {
	for _, one := range r.known {
		text = bytes.ReplaceAll(text, one, []byte(redacted))
	}
	for _, s := range r.shapes {
		text = s.form.ReplaceAll(text, []byte(s.with))
	}
	return text
}

// Text is Bytes for a string.
func (r *Redactor) Text(text string) string { return string(r.Bytes([]byte(text))) }
