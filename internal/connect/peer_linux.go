package connect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// The kernel is asked for one socket by its addresses (sock_diag(7)): a constant cost, where /proc/net/tcp walks the machine's whole
// table. The table is the way out for kernels without inet_diag.

const (
	netlinkSockDiag   = 4
	sockDiagByFamily  = 20
	diagRequestBytes  = 56
	diagReplyBytes    = 72
	diagReplyMax      = 4096
	diagTimeout       = time.Second // the kernel answers within the call; this only bounds a broken one
	diagOffsetState   = 1
	diagOffsetUID     = 64
	diagOffsetInode   = 68
	netlinkHeaderSize = syscall.NLMSG_HDRLEN
)

var errNoSuchSocket = errors.New("no such socket")

// socketOwner is whose socket it is. A socket that its process has closed keeps no owner: inode is 0 then, and uid means nothing.
type socketOwner struct {
	uid   uint32
	inode bool
	state int
}

// lookupPeer finds the owner of the socket whose local end is remote and whose remote end is local. Doubt counts as another user:
// a process that sent its request and closed at once leaves no owner behind, and must not get past the check by that.
func lookupPeer(local, remote netip.AddrPort) peerVerdict {
	owner, err := diagSocket(remote, local)
	if err != nil {
		owner, err = procSocket(remote, local)
	}
	if err != nil || !owner.inode || owner.state == tcpListen {
		return peerOther
	}
	if owner.uid == 0 || int(owner.uid) == os.Getuid() {
		return peerSame
	}
	return peerOther
}

// diagSocket asks sock_diag for the socket with the ends src and dst.
func diagSocket(src, dst netip.AddrPort) (socketOwner, error) {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, netlinkSockDiag)
	if err != nil {
		return socketOwner{}, err
	}
	defer syscall.Close(fd)
	limit := syscall.NsecToTimeval(diagTimeout.Nanoseconds())
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit); err != nil {
		return socketOwner{}, err
	}
	if err := syscall.Sendto(fd, diagRequest(src, dst), 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return socketOwner{}, err
	}
	buf := make([]byte, diagReplyMax)
	n, _, err := syscall.Recvfrom(fd, buf, 0)
	if err != nil {
		return socketOwner{}, err
	}
	return parseDiagReply(buf[:n])
}

// diagRequest is struct nlmsghdr and struct inet_diag_req_v2.
func diagRequest(src, dst netip.AddrPort) []byte {
	b := make([]byte, netlinkHeaderSize+diagRequestBytes)
	native := binary.NativeEndian
	native.PutUint32(b[0:], uint32(len(b)))
	native.PutUint16(b[4:], sockDiagByFamily)
	native.PutUint16(b[6:], syscall.NLM_F_REQUEST)
	q := b[netlinkHeaderSize:]
	q[0], q[1] = syscall.AF_INET, syscall.IPPROTO_TCP
	if src.Addr().Is6() {
		q[0] = syscall.AF_INET6
	}
	native.PutUint32(q[4:], ^uint32(0)) // every state
	binary.BigEndian.PutUint16(q[8:], src.Port())
	binary.BigEndian.PutUint16(q[10:], dst.Port())
	copy(q[12:28], src.Addr().AsSlice())
	copy(q[28:44], dst.Addr().AsSlice())
	native.PutUint32(q[48:], ^uint32(0)) // no cookie
	native.PutUint32(q[52:], ^uint32(0))
	return b
}

func parseDiagReply(b []byte) (socketOwner, error) {
	msgs, err := syscall.ParseNetlinkMessage(b)
	if err != nil || len(msgs) == 0 {
		return socketOwner{}, errMalformedRow
	}
	m := msgs[0]
	if m.Header.Type == syscall.NLMSG_ERROR && len(m.Data) >= 4 {
		// ENOENT says that there is no such socket or no inet_diag module; the table knows which.
		return socketOwner{}, syscall.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
	}
	if m.Header.Type != sockDiagByFamily || len(m.Data) < diagReplyBytes {
		return socketOwner{}, errMalformedRow
	}
	return socketOwner{
		uid:   binary.NativeEndian.Uint32(m.Data[diagOffsetUID:]),
		inode: binary.NativeEndian.Uint32(m.Data[diagOffsetInode:]) != 0,
		state: int(m.Data[diagOffsetState]),
	}, nil
}

// procSocket looks the socket up in the kernel's table.
func procSocket(src, dst netip.AddrPort) (socketOwner, error) {
	tables := []string{"/proc/net/tcp", "/proc/net/tcp6"} // a dual-stack socket talks to 127.0.0.1 from the second
	for _, table := range tables {
		data, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		var found *socketOwner
		_ = eachSocket(bytes.NewReader(data), func(row socketRow) bool {
			if row.local == src && row.remote == dst {
				found = &socketOwner{uid: row.uid, inode: row.inode != "0", state: row.state}
			}
			return found == nil
		})
		if found != nil {
			return *found, nil
		}
	}
	return socketOwner{}, errNoSuchSocket
}
