package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"iap/internal/connect"
	"iap/tunnel"
)

// certificateSoon is when a certificate that still holds is worth a word: its renewal should have happened.
const certificateSoon = 7 * 24 * time.Hour

// network notes the stages from the name to the upgrade, and returns the error of the one that failed.
func (c *checkup) network(way connect.Way, err error) error {
	failed := ""
	var dial *tunnel.DialError
	if errors.As(err, &dial) && dial.Stage != "handshake" {
		failed = dial.Stage
	}
	name, host := "looked up", hostOf(c.profile.Settings.Relay)
	switch {
	case failed == "resolve":
		return c.fail("name", way.Resolve, err)
	case way.Proxy != "":
		name = fmt.Sprintf("%s is the proxy's to look up", clean(host))
	case len(way.Addresses) > 0:
		name = fmt.Sprintf("%s is %s", clean(host), clean(strings.Join(way.Addresses, ", ")))
	default:
		name = clean(host) + " is an address"
	}
	c.add("name", verdictOK, way.Resolve, name, "")
	if failed == "proxy" {
		f := *failureOf(err)
		if way.Proxy != "" {
			f.what = fmt.Sprintf("%s: %s", clean(way.Proxy), f.what)
		}
		return c.fail("proxy", way.Via, &f)
	}
	reached := clean(way.Reached) + " answers"
	if way.Proxy == "" {
		c.add("proxy", verdictOK, 0, "none is set for this relay", "")
	} else {
		c.add("proxy", verdictOK, way.Via, fmt.Sprintf("%s lets it through", clean(way.Proxy)), "")
		reached = "by way of the proxy"
		way.TCP = 0
	}
	if failed == "tcp" {
		return c.fail("tcp", way.TCP, err)
	}
	c.add("tcp", verdictOK, way.TCP, reached, "")
	if failed == "tls" {
		return c.fail("tls", way.Handshake, c.intercepted(err))
	}
	c.tls(way)
	if failed == "upgrade" {
		f := *failureOf(err)
		if dial.Code == tunnel.CodeVersionMismatch { // which the relay also says where no upgrade reached it
			f.what += ", or something on the way takes the upgrade out"
		}
		return c.fail("upgrade", way.Upgrade, &f)
	}
	c.add("upgrade", verdictOK, way.Upgrade, "speaks "+tunnel.Protocol, "")
	return nil
}

func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}

func (c *checkup) tls(way connect.Way) {
	if way.TLS == nil || len(way.TLS.PeerCertificates) == 0 {
		return
	}
	leaf := way.TLS.PeerCertificates[0]
	found := fmt.Sprintf("%s, signed by %q, good until %s", tls.VersionName(way.TLS.Version), authorityOf(way.TLS), clock(leaf.NotAfter))
	if time.Until(leaf.NotAfter) < certificateSoon {
		c.add("tls", verdictWarn, way.Handshake, found, "tell the relay's operator: it must be renewed")
		return
	}
	c.add("tls", verdictOK, way.Handshake, found, "")
}

// authorityOf names the root that vouches for a connection.
func authorityOf(state *tls.ConnectionState) string {
	if len(state.VerifiedChains) == 0 {
		return issuerName(state.PeerCertificates[0])
	}
	chain := state.VerifiedChains[0]
	return issuerName(chain[len(chain)-1])
}

func issuerName(cert *x509.Certificate) string {
	return clean(firstOf(cert.Issuer.CommonName, cert.Issuer.String()))
}

// intercepted tells a proxy that reads TLS from a certificate that is merely unknown: this profile has verified one of this relay
// before, so a signer that nobody here trusts now stands in between, or the relay has changed its authority.
func (c *checkup) intercepted(err error) error {
	var (
		refused *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
	)
	if !errors.As(err, &refused) || !errors.As(err, &unknown) || len(refused.UnverifiedCertificates) == 0 {
		return err
	}
	leaf := refused.UnverifiedCertificates[0]
	relay, next := clean(hostOf(c.profile.Settings.Relay)), "if the relay has an authority of its own: --ca-file FILE"
	if leaf.Issuer.String() == leaf.Subject.String() {
		return &failure{code: "relay_certificate", what: fmt.Sprintf("the certificate for %s is signed by itself (%q)", relay, issuerName(leaf)), next: next, cause: err}
	}
	if c.state.RelayKey == "" {
		return &failure{code: "relay_certificate", what: fmt.Sprintf("the certificate for %s is signed by %q, which this machine does not trust", relay, issuerName(leaf)), next: next, cause: err}
	}
	return &failure{
		code: "tls_intercepted", cause: err,
		what: fmt.Sprintf("%q signs for %s here, and not the authority that did before: something reads along", issuerName(leaf), relay),
		next: "have " + relay + " left out of TLS inspection; if the relay has a new authority: --ca-file FILE",
	}
}

// betrayed looks at a session that was refused for what its two ends signed: a proxy whose authority this machine trusts passes as
// TLS, but not here, since both ends sign the connection they see.
func (c *checkup) betrayed(err error, way connect.Way) error {
	code := tunnel.CodeOf(err)
	if code != tunnel.CodePopFailed && code != tunnel.CodeRelayUntrusted || errors.Is(err, connect.ErrRelayChanged) || way.TLS == nil {
		return err
	}
	f := *failureOf(err)
	f.what += fmt.Sprintf("; TLS was signed by %q: if that is not the relay's authority, it reads along", authorityOf(way.TLS))
	return &f
}
