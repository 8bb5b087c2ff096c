package connect

import (
	"net"
	"net/netip"
)

// peerVerdict is what is known about the process at the other end of an accepted connection.
type peerVerdict int

const (
	peerUnknown peerVerdict = iota // the system cannot tell (not Linux, or not a local peer)
	peerSame                       // a process of this user, or of root
	peerOther                      // a process of another user of this machine
)

// peerOf tells whose process is behind c. Only connections from this machine have an answer.
func peerOf(c net.Conn) peerVerdict {
	local, okL := addrPort(c.LocalAddr())
	remote, okR := addrPort(c.RemoteAddr())
	if !okL || !okR {
		return peerUnknown
	}
	return lookupPeer(local, remote)
}

func addrPort(a net.Addr) (netip.AddrPort, bool) {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()), true
}
