package relay

import (
	"context"
	"reflect"
	"testing"

	"iap/internal/admin"
	"iap/tunnel"
)

func TestKillingAllOfAPrincipalTellsHowMuchEndedAndAllowsANewLogin(t *testing.T) {
	s := newSystem(t, allowAll)
	alice, bob := s.user(nil), s.user(map[string]any{"sub": "bob"})
	first, second := alice.open(tunnel.Interactive), alice.open(tunnel.Bulk)
	other := bob.open(tunnel.Interactive)
	ended, err := s.admin.KillSessions(within(t), admin.KillQuestion{Principal: "corp/alice", Reason: "drill"})
	if err != nil || ended.Sessions != 2 {
		t.Errorf("ended %+v, %v", ended, err)
	}
	await(t, first.Done(), "the first session ends")
	await(t, second.Done(), "the second session ends")
	if _, err := api(t, other).Whoami(within(t)); err != nil || other.Err() != nil {
		t.Errorf("somebody else's session: %v, %v", err, other.Err())
	}
	if _, err := alice.present(tunnel.Interactive, alice.token()); tunnel.CodeOf(err) != tunnel.CodeRevoked {
		t.Errorf("the killed login opens a session: %v", err)
	}
	s.user(nil).open(tunnel.Interactive)

	for _, q := range []admin.KillQuestion{{}, {Principal: "corp/alice", Agent: "agent-1"}, {Principal: "alice"}, {Principal: "other/alice"}} {
		if _, err := s.admin.KillSessions(within(t), q); refusalOf(err) != "bad_request" {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if ended, err := s.admin.KillSessions(within(t), admin.KillQuestion{Principal: "corp/nobody"}); err != nil || !reflect.DeepEqual(ended, admin.Ended{}) {
		t.Errorf("nobody's sessions: %+v, %v", ended, err)
	}
}

func TestAKilledAgentSessionEndsAndTheAgentMayComeBack(t *testing.T) {
	s := newSystem(t, allowAll)
	a := s.enrolFake(false, served{"web", "http", ""})
	announce := tunnel.Announcement{Resource: "web", Kind: "http", Healthy: true}
	session := a.serve(tunnel.Bulk, ignoreStreams, announce)
	ended, err := s.admin.KillSessions(within(t), admin.KillQuestion{Agent: a.id})
	if err != nil || ended.Sessions != 1 {
		t.Errorf("ended %+v, %v", ended, err)
	}
	await(t, session.Done(), "the agent's session ends")
	a.serve(tunnel.Bulk, ignoreStreams, announce)
}

func ignoreStreams(context.Context, *tunnel.Stream, tunnel.Header) {}

func TestARestoredPrincipalNeedsANewLogin(t *testing.T) {
	s := newSystem(t, allowAll)
	stolen := s.user(nil)
	stolen.open(tunnel.Interactive)
	bob := s.user(map[string]any{"sub": "bob"})
	bob.open(tunnel.Interactive)
	must(t, errorOf(s.admin.RevokePrincipal(within(t), "corp/alice", "laptop stolen")))
	must(t, s.admin.RestorePrincipal(within(t), "corp/alice", "new laptop"))
	if _, err := stolen.present(tunnel.Interactive, stolen.token()); tunnel.CodeOf(err) != tunnel.CodeRevoked {
		t.Errorf("the login from before the revocation: %v", err)
	}
	s.user(nil).open(tunnel.Interactive)
	if err := s.admin.RestorePrincipal(within(t), "corp/bob", ""); refusalOf(err) != "unknown_principal" {
		t.Errorf("restored from nothing: %v", err)
	}
	bob.open(tunnel.Bulk)
}
