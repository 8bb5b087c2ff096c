package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"iap/internal/modelapi"
)

const (
	dialTimeout = 10 * time.Second
	poolIdle    = 30 * time.Second // shorter than the idle limits of the model servers, so that a pooled connection is rarely a dead one
	poolSize    = 512              // idle connections to one upstream
	maxHeadSize = 1 << 20          // an upstream's answer head
)

// errForbiddenAddress is an upstream's name that leads where no upstream is.
var errForbiddenAddress = errors.New("the address is link-local, multicast, unspecified or a cloud's metadata service: no upstream")

// newTransport is the only way an agent speaks HTTP to an upstream: straight
// to it, no proxy, no redirects, no compression (the meter must read the
// answer).
func newTransport(l *lingers) *http.Transport {
	return &http.Transport{
		Proxy:                  nil,
		DialContext:            l.dial,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    poolSize,
		IdleConnTimeout:        poolIdle,
		MaxResponseHeaderBytes: maxHeadSize,
		TLSHandshakeTimeout:    dialTimeout,
		ForceAttemptHTTP2:      false,
	}
}

// dialUpstream dials an address of the configuration and refuses, after
// resolution, what no upstream can be: a cloud's metadata service is
// link-local.
func dialUpstream(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if isForbidden(at.Addr()) {
			return errForbiddenAddress
		}
		return nil
	}}
	return d.DialContext(ctx, network, address)
}

// isForbidden says whether an address can be no upstream, in whatever form it is
// written: mapped into IPv6, or carried in it by a translator (RFC 6052, 3056).
func isForbidden(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() || isMetadata(ip) {
		return true
	}
	if ip.Is4() {
		return ip == netip.AddrFrom4([4]byte{255, 255, 255, 255})
	}
	b := ip.As16()
	switch {
	case [12]byte(b[:12]) == [12]byte{0x00, 0x64, 0xff, 0x9b}, [12]byte(b[:12]) == [12]byte{} && ip != netip.IPv6Loopback():
		return isForbidden(netip.AddrFrom4([4]byte(b[12:])))
	case b[0] == 0x20 && b[1] == 0x02:
		return isForbidden(netip.AddrFrom4([4]byte(b[2:6])))
	}
	return false
}

// isMetadata knows the addresses at which clouds hand out credentials, beside
// 169.254.169.254, which is link-local.
func isMetadata(ip netip.Addr) bool {
	switch ip.String() {
	case "fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16":
		return true
	}
	return false
}

// upstreamURL is the target's place at the upstream, byte for byte: the target
// was canonicalised where it was decided on, and is not read again.
func upstreamURL(base *url.URL, target string) (*url.URL, error) {
	path, query, _ := strings.Cut(target, "?")
	if !strings.HasPrefix(path, "/") || modelapi.AmbiguousPath(path) || modelapi.HasControl(query) {
		return nil, fmt.Errorf("target %q is no path that can be read in one way only", target)
	}
	return &url.URL{Scheme: base.Scheme, Host: base.Host, Opaque: base.EscapedPath() + target}, nil
}
