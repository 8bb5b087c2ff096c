package connect

import (
	"context"
	"errors"
	"strings"
	"testing"

	"iap/auth"
	"iap/tunnel"
)

func TestExamineTellsHowFarItCame(t *testing.T) {
	relay := newTestRelay(t, echo)
	session, way, err := Examine(within(t), relay.config(), tunnel.Interactive)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = session.Close(tunnel.CodeCanceled, "done") }()
	if way.Reached != relay.addr || way.Proxy != "" || way.TLS == nil || len(way.TLS.PeerCertificates) == 0 {
		t.Errorf("%+v", way)
	}
	for name, took := range map[string]int64{"tcp": int64(way.TCP), "tls": int64(way.Handshake), "upgrade": int64(way.Upgrade), "session": int64(way.Session)} {
		if took <= 0 {
			t.Errorf("%s took no time", name)
		}
	}
}

func TestExamineReachesTheRelayWithoutALogin(t *testing.T) {
	relay := newTestRelay(t, echo)
	cfg := relay.config()
	cfg.Login = func(context.Context) (Login, error) { return Login{}, auth.ErrNotFound }
	_, way, err := Examine(within(t), cfg, tunnel.Interactive)
	if !errors.Is(err, auth.ErrNotFound) || way.TLS == nil || way.Session != 0 {
		t.Errorf("%v: %+v", err, way)
	}
}

func TestExamineOfAClosedPortStopsThere(t *testing.T) {
	relay := newTestRelay(t, echo)
	cfg := relay.config()
	relay.stop()
	_, way, err := Examine(within(t), cfg, tunnel.Interactive)
	var dial *tunnel.DialError
	if !errors.As(err, &dial) || dial.Stage != "tcp" || way.Reached != "" || way.TLS != nil || !strings.Contains(err.Error(), relay.addr) {
		t.Errorf("%v: %+v", err, way)
	}
}
