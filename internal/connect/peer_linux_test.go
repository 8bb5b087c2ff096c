package connect

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// pair is a connection over loopback, both ends.
func pair(t *testing.T, network, addr string) (accepted, dialled *net.TCPConn) {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Skipf("listen on %s: %v", addr, err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = s.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

func TestOwnProcessIsLetIn(t *testing.T) {
	for network, addr := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "tcp": "127.0.0.1:0"} {
		accepted, _ := pair(t, network, addr)
		if got := peerOf(accepted); got != peerSame {
			t.Errorf("%s: verdict %v", network, got)
		}
	}
}

func TestBothWaysToAskTheKernelAgree(t *testing.T) {
	accepted, _ := pair(t, "tcp4", "127.0.0.1:0")
	local, _ := addrPort(accepted.LocalAddr())
	remote, _ := addrPort(accepted.RemoteAddr())
	table, err := procSocket(remote, local)
	if err != nil {
		t.Skip(err)
	}
	if !table.inode || int(table.uid) != os.Getuid() {
		t.Errorf("table says %+v", table)
	}
	if diag, err := diagSocket(remote, local); err == nil && diag != table {
		t.Errorf("sock_diag says %+v, the table %+v", diag, table)
	}
}

// A process that sends its request and closes at once has no owner any more: uid 0 in the kernel's answer must not let it in.
func TestClosedSocketIsNotTakenForRoots(t *testing.T) {
	accepted, dialled := pair(t, "tcp4", "127.0.0.1:0")
	_, _ = dialled.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	_ = dialled.Close()
	_, _ = accepted.Read(make([]byte, 64))
	if got := peerOf(accepted); got != peerOther {
		t.Errorf("verdict %v", got)
	}
}

func TestUnknownConnectionIsRefused(t *testing.T) {
	a, b := netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:2")
	if got := lookupPeer(a, b); got != peerOther {
		t.Errorf("verdict %v", got)
	}
}

const procTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2CAA 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000000000000000 100 0 0 10 0
   1: 0100007F:A2B4 0100007F:2CAA 01 00000000:00000000 00:00000000 00000000  1001        0 4712 1 0000000000000000 20 4 30 10 -1
   torn line
   2: 00000000000000000000000001000000:2CAA 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1
   3: 0000000000000000FFFF00000100007F:A2B5 0000000000000000FFFF00000100007F:2CAA 01 00000000:00000000 00:00000000 00000000  1002        0 4714 1
`

func TestSocketTableIsRead(t *testing.T) {
	var rows []socketRow
	if err := eachSocket(strings.NewReader(procTable), func(r socketRow) bool { rows = append(rows, r); return true }); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 4 {
		t.Fatalf("%d rows", len(rows))
	}
	if rows[1].local.String() != "127.0.0.1:41652" || rows[1].remote.String() != "127.0.0.1:11434" || rows[1].uid != 1001 || rows[1].inode != "4712" {
		t.Errorf("row %+v", rows[1])
	}
	if rows[2].local.String() != "[::1]:11434" || rows[2].state != tcpListen {
		t.Errorf("row %+v", rows[2])
	}
	if rows[3].local.String() != "127.0.0.1:41653" {
		t.Errorf("a mapped address reads %v", rows[3].local)
	}
}

func FuzzSocketRow(f *testing.F) {
	for _, line := range strings.Split(procTable, "\n") {
		f.Add(line)
	}
	f.Fuzz(func(_ *testing.T, line string) { _, _ = parseSocketRow(line) })
}

func BenchmarkPeerBySockDiag(b *testing.B) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		if peerOf(s) != peerSame {
			b.Fatal("not ours")
		}
	}
}
