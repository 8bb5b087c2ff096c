package main

import (
	"context"
	"net"
	"time"

	"iap/tunnel"
)

const (
	// maxRelays bounds how many relays behind one name are tried.
	maxRelays = 16
	// relayWait is how long one of them may take to answer while there are others.
	relayWait = 3 * time.Second
)

// dialAny dials what a name leads to and, where nobody answers there, the relays
// that the name stood for at the last login: each is held to the same name and key.
func dialAny(name string, others []string) func(ctx context.Context, network, address string) (net.Conn, error) {
	if len(others) == 0 {
		return nil
	}
	own := (&tunnel.Dialer{Address: name}).Target()
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		var d net.Dialer
		if address != own { // a proxy: it finds its own way
			return d.DialContext(ctx, network, address)
		}
		all := append([]string{address}, others...)
		var first error
		for i, one := range all {
			once, cancel := ctx, context.CancelFunc(func() {})
			if i < len(all)-1 {
				once, cancel = context.WithTimeout(ctx, relayWait)
			}
			conn, err := d.DialContext(once, network, (&tunnel.Dialer{Address: one}).Target())
			cancel()
			if err == nil {
				return conn, nil
			}
			if first == nil {
				first = err
			}
			if ctx.Err() != nil {
				break
			}
		}
		return nil, first
	}
}

// knownRelays are the addresses that a relay tells of, without what is none.
func knownRelays(told []string) []string {
	var all []string
	for _, address := range told {
		host, _, err := net.SplitHostPort((&tunnel.Dialer{Address: address}).Target())
		if err == nil && host != "" && clean(address) == address && len(all) < maxRelays {
			all = append(all, address)
		}
	}
	return all
}
