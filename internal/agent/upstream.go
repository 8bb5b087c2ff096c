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
var errForbiddenAddress = errors.New("the address is link-local, multicast or unspecified: no upstream")

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
		ip := at.Addr().Unmap()
		if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
			return errForbiddenAddress
		}
		return nil
	}}
	return d.DialContext(ctx, network, address)
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
