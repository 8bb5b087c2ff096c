package connect

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
)

// holdPort listens on a port that was free.
func holdPort(t *testing.T, network, addr string) int {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Skipf("listen on %s: %v", addr, err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

func TestBothLoopbackFamiliesShareThePort(t *testing.T) {
	b, err := Bind(context.Background(), PortRequest{Any: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, l := range b.Listeners {
		a := l.Addr().(*net.TCPAddr)
		if a.Port != b.Port || !a.IP.IsLoopback() {
			t.Errorf("listens on %v", a)
		}
	}
}

func TestRememberedPortThatIsTakenMovesAndSaysWhoHasIt(t *testing.T) {
	taken := holdPort(t, "tcp4", "127.0.0.1:0")
	b, err := Bind(context.Background(), PortRequest{Kind: "tcp", Remembered: taken})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Moved == nil || b.Moved.Port != taken || b.Port == taken {
		t.Fatalf("port %d, moved %v", b.Port, b.Moved)
	}
	if runtime.GOOS == "linux" && (b.Moved.Owner.PID != os.Getpid() || b.Moved.Owner.Name == "") {
		t.Errorf("owner %+v, want pid %d", b.Moved.Owner, os.Getpid())
	}
}

func TestPortTakenOnOneFamilyOnlyCountsAsTaken(t *testing.T) {
	port := holdPort(t, "tcp6", "[::1]:0")
	_, err := Bind(context.Background(), PortRequest{Explicit: port})
	var taken *PortTakenError
	if !errors.As(err, &taken) || taken.Port != port {
		t.Fatalf("err = %v", err)
	}
}

func TestExplicitPortThatIsTakenIsAnError(t *testing.T) {
	port := holdPort(t, "tcp4", "127.0.0.1:0")
	_, err := Bind(context.Background(), PortRequest{Explicit: port, Remembered: port + 1})
	var taken *PortTakenError
	if !errors.As(err, &taken) {
		t.Fatalf("err = %v", err)
	}
}

func TestPortsOfOtherResourcesAreLeftAlone(t *testing.T) {
	r := PortRequest{Kind: "model", Remembered: 20000, Reserved: map[int]bool{ModelPort: true, ModelPort + 2: true}}
	got := r.candidates()[:3]
	if got[0] != 20000 || got[1] != ModelPort+1 || got[2] != ModelPort+3 {
		t.Errorf("candidates %v", got)
	}
}

func TestOwnerReadsAsASentence(t *testing.T) {
	for want, e := range map[string]*PortTakenError{
		"port 11434 is taken (ollama, pid 812)": {11434, PortOwner{"ollama", 812}},
		"port 11434 is taken (another program)": {11434, PortOwner{}},
		"port 11434 is taken (pid 812)":         {11434, PortOwner{PID: 812}},
	} {
		if e.Error() != want {
			t.Errorf("%q, want %q", e.Error(), want)
		}
	}
}

func TestLongNamesAndOddOnesAreSafeFileNames(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"phi3", "a/b", "../x", ".hidden", "A", "", strings.Repeat("x", 300), "a b", "ä", "_a"} {
		file := fileName(name)
		if strings.ContainsAny(file, `/\ `) || strings.HasPrefix(file, ".") || len(file) > maxPlainName {
			t.Errorf("%q becomes %q", name, file)
		}
		if other, ok := seen[file]; ok {
			t.Errorf("%q and %q share %q", name, other, file)
		}
		seen[file] = name
	}
}
