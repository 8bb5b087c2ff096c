package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/connect"
	"iap/internal/profile"
	"iap/tunnel"
)

func TestEveryErrorHasCodeWordsAndExitStatus(t *testing.T) {
	dial := func(stage string, code tunnel.Code, err error) error {
		return fmt.Errorf("wait: %w", &tunnel.DialError{Stage: stage, Code: code, Err: err})
	}
	for _, c := range []struct {
		err  error
		code string
		exit int
	}{
		{dial("tcp", 0, &net.OpError{Op: "dial", Addr: &net.TCPAddr{Port: 1}, Err: syscall.ECONNREFUSED}), "relay_unreachable", 7},
		{dial("resolve", 0, &net.DNSError{Name: "x", IsNotFound: true}), "relay_unknown_name", 7},
		{dial("proxy", tunnel.CodeProxyAuthRequired, errors.New("407")), "proxy_auth_required", 7},
		{dial("upgrade", 0, errors.New("400")), "not_a_relay", 7},
		{dial("handshake", tunnel.CodeLoginRequired, &tunnel.Refusal{Code: tunnel.CodeLoginRequired}), "login_required", 4},
		{dial("handshake", tunnel.CodeBindingRefused, errors.New("weak")), "relay_changed", 1},
		{dial("handshake", 0, &auth.LoginError{Code: auth.CodeProviderUnreachable, Public: "the provider is away"}), "provider_unreachable", 1},
		{&tunnel.SessionError{Code: tunnel.CodeRevoked}, "revoked", 4},
		{&connect.ReplyError{Reply: tunnel.Reply{Code: "policy_denied"}}, "policy_denied", 5},
		{&connect.ReplyError{Reply: tunnel.Reply{Code: "a_reason_of_tomorrow"}}, "a_reason_of_tomorrow", 5},
		{&connect.ReplyError{Reply: tunnel.Reply{Code: "agent_offline"}}, "agent_offline", 6},
		{&admin.Error{Code: "limit_reached", Message: "slow down"}, "limit_reached", 8},
		{&admin.Error{Code: "bad_request", Message: "no such action"}, "bad_request", 2},
		{&auth.LoginError{Code: auth.CodeLoginMethodBlocked, Public: "blocked", Hint: "iapctl login --browser"}, "login_method_blocked", 4},
		{auth.ErrNotFound, "login_required", 4},
		{fmt.Errorf("x: %w", profile.ErrRelayKeyChanged), "relay_changed", 1},
		{&connect.PortTakenError{Port: 1}, "port_taken", 1},
		{connect.ErrNoSession, "relay_unreachable", 7},
		{context.Canceled, "canceled", 3},
		{errors.New("anything"), "internal", 1},
	} {
		f := failureOf(c.err)
		if f.code != c.code || f.exit() != c.exit || f.what == "" {
			t.Errorf("%v: code %q exit %d what %q, want %q %d", c.err, f.code, f.exit(), f.what, c.code, c.exit)
		}
		if f.next == "" {
			t.Errorf("%v: no next step", c.err)
		}
	}
}

func TestWordsOfOthersAreCleanedInErrors(t *testing.T) {
	evil := "\x1b[2J\nError: fake"
	for _, err := range []error{
		&admin.Error{Code: evil, Message: evil, Hint: evil},
		&connect.ReplyError{Reply: tunnel.Reply{Code: evil, Message: evil}},
		&auth.LoginError{Code: "login_failed", Public: evil, Hint: evil},
		&tunnel.DialError{Stage: "handshake", Code: tunnel.CodeRefused, Err: &tunnel.Refusal{Code: tunnel.CodeRefused, Message: evil}},
	} {
		a, _, stderr := testApp(t)
		a.verbose = true
		a.printFailure(failureOf(err))
		if strings.Contains(stderr.String(), "\x1b") || strings.Contains(stderr.String(), "\nError: fake") {
			t.Errorf("%T prints %q", err, stderr.String())
		}
	}
}

func TestCauseIsShownWithVerboseOnly(t *testing.T) {
	f := failureOf(errors.New("raw cause"))
	a, _, stderr := testApp(t)
	a.printFailure(f)
	if strings.Contains(stderr.String(), "raw cause") {
		t.Error("shown without -v")
	}
	a.verbose = true
	a.printFailure(f)
	if !strings.Contains(stderr.String(), "raw cause") {
		t.Error("not shown with -v")
	}
}

func TestOutputFormIsKnownBeforeTheFlagsAreParsed(t *testing.T) {
	for args, want := range map[string]string{
		"-o json x": "json", "x -o=json": "json", "--output json": "json", "--output=json --bad": "json", "-ojson": "json",
		"-o text": "text", "x -- -o json": "text", "": "text",
	} {
		if got := outputFlag(strings.Fields(args)); got != want {
			t.Errorf("%q: %s", args, got)
		}
	}
}

func TestStatusOfAModelServersRefusal(t *testing.T) {
	for status, want := range map[int]int{401: 4, 403: 5, 429: 8, 503: 6, 502: 6, 400: 1} {
		f := httpFailure(&http.Response{StatusCode: status, Status: "x", Header: http.Header{"Retry-After": {"7"}}}, []byte(`{"error":{"message":"no","code":"whatever"}}`))
		if f.exit() != want || f.what != "no" {
			t.Errorf("%d: exit %d, %q", status, f.exit(), f.what)
		}
		if status == 429 && f.next != "try again in 7 seconds" {
			t.Errorf("next step %q", f.next)
		}
	}
}

func TestDenialsAndLimitsHaveTheirOwnExitStatus(t *testing.T) {
	for code, want := range map[string]int{
		"budget_exceeded": exitLimit, "rate_limited": exitLimit, "concurrency_exceeded": exitLimit, "queue_full": exitLimit, "limit_reached": exitLimit,
		"model_not_granted": exitDenied, "acr_required": exitDenied, "media_not_granted": exitDenied, "keys_not_granted": exitDenied, "key_lifetime": exitDenied,
		"limits_unavailable": exitUnreachable, "agent_offline": exitOffline,
	} {
		if got := (&failure{code: code}).exit(); got != want {
			t.Errorf("%s: %d, want %d", code, got, want)
		}
	}
}
