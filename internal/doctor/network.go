package doctor

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"iap/internal/plaintext"
	"iap/tunnel"
)

// certificateSoon is when a certificate that still holds is worth a word: its renewal should have happened.
const certificateSoon = 7 * 24 * time.Hour

// Network is a dial to a relay and what is known of it.
type Network struct {
	Relay   string // host[:port] as configured
	Way     Way
	Err     error               // of the dial and the handshake; nil: a session is there
	Known   bool                // the relay's certificate has been verified from here before
	CAHint  string              // how to trust an authority of the relay's own
	Explain func(error) Finding // what an error means in the words of the program
	Clock   func(time.Time) string
}

// Network notes the stages from the name to the upgrade. It returns what failed among them, nil if the relay was reached.
func (r *Report) Network(n Network) *Finding {
	failed, way := "", n.Way
	var dial *tunnel.DialError
	if errors.As(n.Err, &dial) && dial.Stage != "handshake" {
		failed = dial.Stage
	}
	host := plaintext.Clean(hostOf(n.Relay))
	fail := func(stage string, took time.Duration, f Finding) *Finding {
		r.Fail(stage, took, f)
		return &f
	}
	name := host + " is an address"
	switch {
	case failed == "resolve":
		return fail("name", way.Resolve, n.Explain(n.Err))
	case way.Proxy != "":
		name = fmt.Sprintf("%s is the proxy's to look up", host)
	case len(way.Addresses) > 0:
		name = fmt.Sprintf("%s is %s", host, plaintext.Clean(strings.Join(way.Addresses, ", ")))
	}
	r.Add("name", OK, way.Resolve, name, "")
	if failed == "proxy" {
		f := n.Explain(n.Err)
		if way.Proxy != "" {
			f.What = fmt.Sprintf("%s: %s", plaintext.Clean(way.Proxy), f.What)
		}
		return fail("proxy", way.Via, f)
	}
	reached := plaintext.Clean(way.Reached) + " answers"
	if way.Proxy == "" {
		r.Add("proxy", OK, 0, "none is set for this relay", "")
	} else {
		r.Add("proxy", OK, way.Via, fmt.Sprintf("%s lets it through", plaintext.Clean(way.Proxy)), "")
		reached = "by way of the proxy"
		way.TCP = 0
	}
	if failed == "tcp" {
		return fail("tcp", way.TCP, n.Explain(n.Err))
	}
	r.Add("tcp", OK, way.TCP, reached, "")
	if failed == "tls" {
		return fail("tls", way.Handshake, n.intercepted())
	}
	r.tls(n)
	if failed == "upgrade" {
		f := n.Explain(n.Err)
		if dial.Code == tunnel.CodeVersionMismatch { // which the relay also says where no upgrade reached it
			f.What += ", or something on the way takes the upgrade out"
		}
		return fail("upgrade", way.Upgrade, f)
	}
	r.Add("upgrade", OK, way.Upgrade, "speaks "+tunnel.Protocol, "")
	return nil
}

func (r *Report) tls(n Network) {
	state := n.Way.TLS
	if state == nil || len(state.PeerCertificates) == 0 {
		return
	}
	leaf := state.PeerCertificates[0]
	found := fmt.Sprintf("%s, signed by %q, good until %s", tls.VersionName(state.Version), Authority(state), n.Clock(leaf.NotAfter))
	if time.Until(leaf.NotAfter) < certificateSoon {
		r.Add("tls", Warn, n.Way.Handshake, found, "tell the relay's operator: it must be renewed")
		return
	}
	r.Add("tls", OK, n.Way.Handshake, found, "")
}

// Authority names the root that vouches for a connection.
func Authority(state *tls.ConnectionState) string {
	if len(state.VerifiedChains) == 0 {
		return issuerName(state.PeerCertificates[0])
	}
	chain := state.VerifiedChains[0]
	return issuerName(chain[len(chain)-1])
}

func issuerName(cert *x509.Certificate) string {
	return plaintext.Clean(cmp.Or(cert.Issuer.CommonName, cert.Issuer.String()))
}

// intercepted tells a proxy that reads TLS from a certificate that is merely unknown: one of this relay was verified here
// before, so a signer that nobody here trusts now stands in between, or the relay has changed its authority.
func (n Network) intercepted() Finding {
	var (
		refused *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
		expired x509.CertificateInvalidError
	)
	relay := plaintext.Clean(hostOf(n.Relay))
	if !errors.As(n.Err, &refused) || len(refused.UnverifiedCertificates) == 0 {
		return n.Explain(n.Err)
	}
	leaf := refused.UnverifiedCertificates[0]
	switch {
	case errors.As(n.Err, &expired) && expired.Reason == x509.Expired:
		return n.outOfDate(leaf)
	case !errors.As(n.Err, &unknown):
		return n.Explain(n.Err)
	case leaf.Issuer.String() == leaf.Subject.String():
		return Finding{"relay_certificate", fmt.Sprintf("the certificate for %s is signed by itself (%q)", relay, issuerName(leaf)), "if the relay has an authority of its own: " + n.CAHint}
	case !n.Known:
		return Finding{
			"relay_certificate", fmt.Sprintf("the certificate for %s is signed by %q, which this machine does not trust", relay, issuerName(leaf)),
			"if the relay has an authority of its own: " + n.CAHint,
		}
	}
	return Finding{
		"tls_intercepted", fmt.Sprintf("%q signs for %s here, and not the authority that did before: something reads along", issuerName(leaf), relay),
		"have " + relay + " left out of TLS inspection; if the relay has a new authority: " + n.CAHint,
	}
}

// outOfDate is a certificate of yesterday or of tomorrow; the latter is this machine's clock.
func (n Network) outOfDate(leaf *x509.Certificate) Finding {
	f := Finding{Code: "relay_certificate", Next: "tell the relay's operator: it must be renewed; or set this machine's clock"}
	f.What = fmt.Sprintf("the certificate for %s was good until %s", plaintext.Clean(hostOf(n.Relay)), n.Clock(leaf.NotAfter))
	if time.Now().Before(leaf.NotBefore) {
		f.What, f.Next = fmt.Sprintf("the certificate is good from %s on: this machine's clock says %s", n.Clock(leaf.NotBefore), n.Clock(time.Now())), "set this machine's clock"
	}
	return f
}

// Betrayed adds to the words of a session that was refused for what its two ends signed: a proxy whose authority this
// machine trusts passes as TLS, but not there, since both ends sign the connection they see.
func (n Network) Betrayed(f Finding) Finding {
	if code := tunnel.CodeOf(n.Err); n.Way.TLS != nil && (code == tunnel.CodePopFailed || code == tunnel.CodeRelayUntrusted) {
		f.What += fmt.Sprintf("; TLS was signed by %q: if that is not the relay's authority, it reads along", Authority(n.Way.TLS))
	}
	return f
}

func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}
