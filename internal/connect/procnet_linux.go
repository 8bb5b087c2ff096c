package connect

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	// maxProcNet bounds one reading of /proc/net/tcp: about 100,000 sockets at 150 bytes a line.
	maxProcNet = 16 << 20
	// maxProcesses bounds the search for a port's owner.
	maxProcesses = 20000

	tcpListen = 0x0a // state of a listening socket
)

// socketRow is one line of /proc/net/tcp or tcp6.
type socketRow struct {
	local, remote netip.AddrPort
	state         int
	uid           uint32
	inode         string
}

var errMalformedRow = errors.New("malformed line")

// eachSocket calls f with every row of a /proc/net/tcp table until f returns false.
func eachSocket(r io.Reader, f func(socketRow) bool) error {
	s := bufio.NewScanner(io.LimitReader(r, maxProcNet))
	s.Scan() // the heading
	for s.Scan() {
		row, err := parseSocketRow(s.Text())
		if err != nil {
			continue // a line torn by a concurrent change
		}
		if !f(row) {
			return nil
		}
	}
	return s.Err()
}

func parseSocketRow(line string) (socketRow, error) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return socketRow{}, errMalformedRow
	}
	local, err := parseProcAddr(f[1])
	if err != nil {
		return socketRow{}, err
	}
	remote, err := parseProcAddr(f[2])
	if err != nil {
		return socketRow{}, err
	}
	state, err := strconv.ParseUint(f[3], 16, 8)
	if err != nil {
		return socketRow{}, errMalformedRow
	}
	uid, err := strconv.ParseUint(f[7], 10, 32)
	if err != nil {
		return socketRow{}, errMalformedRow
	}
	return socketRow{local: local, remote: remote, state: int(state), uid: uint32(uid), inode: f[9]}, nil
}

// parseProcAddr reads ADDRESS:PORT as the kernel prints it: the port big-endian, the address in 32-bit words of the machine's own
// order, little-endian on every system iapctl is built for.
func parseProcAddr(text string) (netip.AddrPort, error) {
	host, portText, ok := strings.Cut(text, ":")
	if !ok {
		return netip.AddrPort{}, errMalformedRow
	}
	port, err := strconv.ParseUint(portText, 16, 16)
	if err != nil {
		return netip.AddrPort{}, errMalformedRow
	}
	raw, err := hex.DecodeString(host)
	if err != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, errMalformedRow
	}
	for i := 0; i < len(raw); i += 4 {
		raw[i], raw[i+1], raw[i+2], raw[i+3] = raw[i+3], raw[i+2], raw[i+1], raw[i]
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), nil
}

// portOwner finds the process that listens on port. Processes of other users cannot be looked into: then only "another program" is known.
func portOwner(port int) PortOwner {
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		_ = eachSocket(bytes.NewReader(data), func(row socketRow) bool {
			if row.state == tcpListen && int(row.local.Port()) == port {
				inodes["socket:["+row.inode+"]"] = true
			}
			return true
		})
	}
	if len(inodes) == 0 {
		return PortOwner{}
	}
	return processWith(inodes)
}

// processWith finds a process holding one of the sockets.
func processWith(sockets map[string]bool) PortOwner {
	proc, err := os.Open("/proc")
	if err != nil {
		return PortOwner{}
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(maxProcesses)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		fds, err := os.ReadDir(filepath.Join("/proc", name, "fd"))
		if err != nil {
			continue
		}
		for _, fd := range fds {
			link, err := os.Readlink(filepath.Join("/proc", name, "fd", fd.Name()))
			if err == nil && sockets[link] {
				comm, _ := os.ReadFile(filepath.Join("/proc", name, "comm"))
				return PortOwner{Name: strings.TrimSpace(string(comm)), PID: pid}
			}
		}
	}
	return PortOwner{}
}
