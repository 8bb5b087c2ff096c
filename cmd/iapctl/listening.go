package main

import (
	"crypto/sha256"
	"net/netip"
	"reflect"
	"slices"

	"iap/internal/admin"
	"iap/tunnel"
)

// listening is how a resource is served on this machine.
type listening struct {
	port            int
	allowOrigins    []string
	allowHosts      []string
	allowOtherUsers bool
	localKey        bool
	forContainers   bool
	listen          string
}

// target is one resource to serve.
type target struct {
	name string
	listening
}

// guarded reports whether requests must carry the local key; those of a command always do.
func (o listening) guarded(command bool) bool {
	return command || o.localKey || o.forContainers || o.listen != ""
}

func (o listening) isZero() bool { return reflect.ValueOf(o).IsZero() }

// checkKind refuses what a kind cannot keep: bytes of a tcp resource carry no key, so whoever reaches its port is served.
func (o listening) checkKind(r admin.Resource) error {
	if r.Kind != "tcp" {
		return nil
	}
	if o.localKey {
		return usage("%s is a tcp resource: its connections cannot carry a key", clean(r.Name))
	}
	if (o.listen != "" || o.forContainers) && !o.allowOtherUsers {
		return &failure{
			code: "usage", what: clean(r.Name) + " is a tcp resource: no key guards it, so whoever reaches the address would use it as you",
			next: "if you want that: add --allow-other-users",
		}
	}
	return nil
}

// rules are the listener's rules, which the relay applies to each request.
func (o listening) rules(key string, hosts []string) *tunnel.Local {
	l := &tunnel.Local{AllowOrigins: o.allowOrigins, AllowHosts: append(slices.Clip(hosts), o.allowHosts...)}
	if key != "" {
		sum := sha256.Sum256([]byte(key))
		l.KeyHash = sum[:]
	}
	return l
}

// extraAddrs are the addresses to listen on beside loopback, and the names under which they are called.
func (o listening) extraAddrs() (addrs []netip.Addr, hosts []string, err error) {
	if o.listen != "" {
		addr := netip.MustParseAddr(o.listen) // checked before
		addrs = append(addrs, addr)
		if !addr.IsUnspecified() {
			hosts = append(hosts, addr.String())
		}
	}
	if o.forContainers {
		bridge, err := containerBridge()
		if err != nil {
			return nil, nil, err
		}
		hosts = append(hosts, containerHosts...)
		if bridge.IsValid() {
			addrs, hosts = append(addrs, bridge), append(hosts, bridge.String())
		}
	}
	return addrs, hosts, nil
}
