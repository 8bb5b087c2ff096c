package auth

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"unicode"
)

// parseEndpoint accepts what this package is ready to send a request or a person
// to: https, or http on a loopback host (a development provider, a test).
func parseEndpoint(raw string) (*url.URL, error) {
	if strings.ContainsFunc(raw, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsGraphic(r) || unicode.IsSpace(r) }) {
		return nil, errors.New("address holds control characters or spaces")
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, fmt.Errorf("parse address: %w", err)
	case u.Host == "" || u.Hostname() == "" || u.Opaque != "":
		return nil, errors.New("address has no host")
	case u.User != nil:
		return nil, errors.New("address holds a user name")
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		return u, nil
	default:
		return nil, fmt.Errorf("scheme %q is not accepted, https is (http on loopback)", u.Scheme)
	}
}

// isLoopback says whether a host name or address can only mean this machine.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// belongsTo refuses an address that a provider's document must not name: loopback
// and private address literals, unless the provider itself lives on one. Names are
// free, since providers keep keys on other hosts; the dialler refuses link-local.
func belongsTo(issuer, u *url.URL) error {
	host, home := u.Hostname(), issuer.Hostname()
	if isLoopback(host) && !isLoopback(home) {
		return fmt.Errorf("address %s is on loopback, the issuer is not", u.Redacted())
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return nil
	}
	addr = addr.Unmap()
	if neverDialled(addr) {
		return fmt.Errorf("address %s is link-local or no host's", u.Redacted())
	}
	if _, err := netip.ParseAddr(home); err != nil && addr.IsPrivate() {
		return fmt.Errorf("address %s is private, the issuer is a public name", u.Redacted())
	}
	return nil
}

// neverDialled holds for addresses where no provider lives and cloud metadata does.
func neverDialled(a netip.Addr) bool {
	return a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified()
}

// refuseLinkLocal is a net.Dialer's Control: it sees the address after resolution.
func refuseLinkLocal(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("read address: %w", err)
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return fmt.Errorf("read address: %w", err)
	}
	if neverDialled(addr.Unmap()) {
		return fmt.Errorf("dial %s: link-local addresses are refused", addr)
	}
	return nil
}
