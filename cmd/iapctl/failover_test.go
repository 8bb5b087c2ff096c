package main

import (
	"net"
	"slices"
	"testing"
)

// TestDeadRelayGivesWayToAnother dials a name behind which nobody answers any more.
func TestDeadRelayGivesWayToAnother(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	name := dead.Addr().String()
	dead.Close()
	live, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	conn, err := dialAny(name, []string{name, live.Addr().String()})(t.Context(), "tcp", name)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.RemoteAddr().String(); got != live.Addr().String() {
		t.Errorf("dialled %s, want %s", got, live.Addr())
	}
	if _, err := dialAny(name, []string{live.Addr().String()})(t.Context(), "tcp", "127.0.0.1:1"); err == nil {
		t.Error("a proxy that is away was gone round")
	}
	if dialAny(name, nil) != nil {
		t.Error("one relay alone needs no other dialer")
	}
}

func TestWhatIsNoAddressIsNotKept(t *testing.T) {
	got := knownRelays([]string{"a.example", "b.example:8443", "", "c\x1b[31m.example", "d e"})
	if !slices.Equal(got, []string{"a.example", "b.example:8443"}) {
		t.Errorf("kept %q", got)
	}
}
