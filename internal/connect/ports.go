package connect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
)

const (
	// ModelPort is where applications look for a model server by default.
	ModelPort = 11434
	// otherPort is the first port tried for other kinds.
	otherPort = 15000
	// portTries bounds the search upwards from the first choice.
	portTries = 200
)

// PortOwner is the process that holds a port, as far as the system tells.
type PortOwner struct {
	Name string
	PID  int
}

func (o PortOwner) String() string {
	switch {
	case o.PID == 0:
		return "another program"
	case o.Name == "":
		return "pid " + strconv.Itoa(o.PID)
	}
	return fmt.Sprintf("%s, pid %d", o.Name, o.PID)
}

// PortTakenError says that a port asked for, or remembered, is in use.
type PortTakenError struct {
	Port  int
	Owner PortOwner
}

func (e *PortTakenError) Error() string { return fmt.Sprintf("port %d is taken (%s)", e.Port, e.Owner) }

// PortRequest says how a resource gets its port.
type PortRequest struct {
	Kind       string       // model resources begin at ModelPort
	Explicit   int          // the user's own choice; taken is an error
	Remembered int          // what it had before; 0: none
	Reserved   map[int]bool // ports remembered for other resources: not given away while they are free of use
	Any        bool         // any free port will do: for a run that nobody else has to find
	Extra      []netip.Addr // where to listen beside 127.0.0.1 and ::1; an unspecified address stands for all
}

// Bound is a set of listeners on one port.
type Bound struct {
	Port      int
	Listeners []net.Listener
	Moved     *PortTakenError // why it is not the first choice; nil when it is
}

// Close closes every listener.
func (b *Bound) Close() error {
	var first error
	for _, l := range b.Listeners {
		if err := l.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Bind finds the resource's port and listens there, on both loopback families at once.
func Bind(ctx context.Context, r PortRequest) (*Bound, error) {
	if r.Explicit != 0 {
		return listenAll(ctx, r.addrs(), r.Explicit)
	}
	var moved *PortTakenError
	for _, port := range r.candidates() {
		b, err := listenAll(ctx, r.addrs(), port)
		var taken *PortTakenError
		if errors.As(err, &taken) {
			if moved == nil && port != 0 {
				moved = taken
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		b.Moved = moved
		return b, nil
	}
	return nil, fmt.Errorf("find a free port from %d on: %w", r.first(), moved)
}

func (r PortRequest) first() int {
	if r.Kind == "model" {
		return ModelPort
	}
	return otherPort
}

// candidates are the ports to try: the remembered one, then upwards from the kind's first, leaving out those of other resources.
func (r PortRequest) candidates() []int {
	if r.Any {
		return make([]int, portTries) // zeros: the system chooses
	}
	var ports []int
	if r.Remembered != 0 {
		ports = append(ports, r.Remembered)
	}
	for p := r.first(); p < r.first()+portTries; p++ {
		if p != r.Remembered && !r.Reserved[p] {
			ports = append(ports, p)
		}
	}
	return ports
}

// addrs are both loopback families and what was asked for besides.
func (r PortRequest) addrs() []netip.Addr {
	for _, a := range r.Extra {
		switch {
		case a.IsUnspecified() && a.Is4():
			return []netip.Addr{a, netip.IPv6Loopback()} // holds 127.0.0.1 already
		case a.IsUnspecified():
			return []netip.Addr{a} // and this holds both
		}
	}
	return append([]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, r.Extra...)
}

// network keeps 0.0.0.0 from meaning IPv6 too.
func network(a netip.Addr) string {
	if a.Is4() {
		return "tcp4"
	}
	return "tcp"
}

// listenAll listens on every address at the same port; port 0 is chosen by the first. Of the two loopback families one may be
// missing on a machine; a port taken on either counts as taken, since an application may try both.
func listenAll(ctx context.Context, addrs []netip.Addr, port int) (*Bound, error) {
	b := &Bound{Port: port}
	var lc net.ListenConfig
	for _, a := range addrs {
		at := netip.AddrPortFrom(a, uint16(b.Port))
		l, err := lc.Listen(ctx, network(a), at.String())
		switch {
		case err == nil:
			b.Listeners = append(b.Listeners, l)
			b.Port = l.Addr().(*net.TCPAddr).Port
		case isInUse(err):
			_ = b.Close()
			return nil, &PortTakenError{Port: b.Port, Owner: portOwner(b.Port)}
		case a == netip.IPv6Loopback() && isNoAddress(err):
			// no IPv6 on this machine: nobody can reach ::1 either
		default:
			_ = b.Close()
			return nil, fmt.Errorf("listen on %s: %w", at, err)
		}
	}
	return b, nil
}

// Addrs are the listeners' addresses, host:port.
func (b *Bound) Addrs() []string {
	var list []string
	for _, l := range b.Listeners {
		list = append(list, l.Addr().String())
	}
	return list
}

func isNoAddress(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}
