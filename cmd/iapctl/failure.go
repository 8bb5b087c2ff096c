package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/config"
	"iap/internal/connect"
	"iap/internal/profile"
	"iap/internal/relaykey"
	"iap/tunnel"
)

// Exit statuses.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitCanceled    = 3
	exitLogin       = 4
	exitDenied      = 5
	exitOffline     = 6
	exitUnreachable = 7
	exitLimit       = 8
	exitOwnFailure  = 125 // of `connect … -- command`, so that the command's own statuses stay its own
)

// exitCodes is the one table between error codes and exit statuses; a code that is not in it exits with 1.
var exitCodes = map[string]int{
	"usage": exitUsage, "bad_request": exitUsage, "canceled": exitCanceled,

	"login_required": exitLogin, "token_unavailable": exitLogin, "token_invalid": exitLogin, "pop_failed": exitLogin, "revoked": exitLogin,
	"session_expired": exitLogin, "refresh_refused": exitLogin, "login_canceled": exitCanceled,
	"login_expired": exitLogin, "login_timeout": exitLogin, "login_failed": exitLogin, "login_method_blocked": exitLogin,

	"policy_denied": exitDenied, "policy_changed": exitDenied, "refused": exitDenied, "unknown_resource": exitDenied, "login_denied": exitDenied,
	"no_grant": exitDenied, "verb_not_granted": exitDenied, "session_required": exitDenied, "resource_not_granted": exitDenied, "model_not_granted": exitDenied,
	"action_not_granted": exitDenied, "mfa_required": exitDenied, "auth_too_old": exitDenied, "binding_required": exitDenied,
	"groups_unknown": exitDenied, "claims_required": exitDenied, "forbidden": exitDenied, "acr_required": exitDenied, "egress_not_granted": exitDenied,
	"media_not_granted": exitDenied, "keys_not_granted": exitDenied, "key_lifetime": exitDenied, "key_scope": exitDenied, "websocket_limited": exitDenied, "denied_by_rule": exitDenied,

	"agent_offline": exitOffline, "upstream_unreachable": exitOffline, "not_announced": exitOffline, "upstream_reset": exitOffline,

	"relay_unreachable": exitUnreachable, "relay_unknown_name": exitUnreachable, "relay_certificate": exitUnreachable, "tls_intercepted": exitUnreachable,
	"proxy_failed": exitUnreachable, "proxy_auth_required": exitUnreachable, "proxy_refused": exitUnreachable,
	"not_a_relay": exitUnreachable, "relay_shutdown": exitUnreachable, "connection_lost": exitUnreachable,
	"timeout": exitUnreachable, "state_unavailable": exitUnreachable, "audit_unavailable": exitUnreachable, "recording_unavailable": exitUnreachable,
	"limits_unavailable": exitUnreachable,

	"limit_reached": exitLimit, "too_many_streams": exitLimit, "overloaded": exitLimit, "budget_exceeded": exitLimit,
	"rate_limited": exitLimit, "concurrency_exceeded": exitLimit, "queue_full": exitLimit,
}

// failure is an error as a person sees it: what happened, a stable code, the next command to type. The cause is shown with -v only.
type failure struct {
	code     string
	what     string
	next     string
	cause    error
	exitCode int           // 0: by the table
	stepUp   *admin.StepUp // the login that would change it, if one would
}

func (f *failure) Error() string { return f.what }
func (f *failure) Unwrap() error { return f.cause }

func (f *failure) exit() int {
	if f.exitCode != 0 {
		return f.exitCode
	}
	if status, ok := exitCodes[f.code]; ok {
		return status
	}
	return exitError
}

// commandStatus carries the status of a command that iapctl ran.
type commandStatus int

func (s commandStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

var errCanceled = &failure{code: "canceled", what: "cancelled", next: "type it again when you are ready"}

// anyHelp stands for the help of the command that was typed, which few of those who find a fault know.
const anyHelp = "iapctl --help"

func usage(format string, args ...any) *failure {
	return &failure{code: "usage", what: fmt.Sprintf(format, args...), next: anyHelp}
}

// failureOf finds the words for an error. Every kind of error that reaches run has its place here.
func failureOf(err error) *failure {
	var (
		own      *failure
		login    *auth.LoginError
		api      *admin.Error
		reply    *connect.ReplyError
		file     *config.Error
		taken    *connect.PortTakenError
		outside  *connect.TokenRefusedError
		dial     *tunnel.DialError
		urlError *url.Error
		netError net.Error
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &login):
		return &failure{code: login.Code, what: clean(login.Public), next: firstOf(clean(login.Hint), "iapctl login"), cause: err}
	case errors.As(err, &api):
		f := &failure{code: clean(api.Code), what: clean(api.Message), next: clean(api.Hint), cause: err}
		f.next = firstOf(f.next, nextFor(f.exit()))
		return f
	case errors.As(err, &reply):
		return replyFailure(reply.Reply)
	case errors.As(err, &file):
		return &failure{code: "config_invalid", what: clean(file.Error()), next: "correct the file, then try again", cause: err}
	case errors.As(err, &taken):
		return &failure{code: "port_taken", what: fmt.Sprintf("port %d is taken (%s)", taken.Port, clean(taken.Owner.String())), next: "choose another --port, or leave it out", cause: err}
	case errors.Is(err, connect.ErrAlreadyRunning):
		return &failure{code: "already_connected", what: "another process is just connecting the same resource", next: "iapctl status", cause: err}
	case errors.Is(err, auth.ErrNotFound):
		return &failure{code: "login_required", what: "nobody is logged in here", next: "iapctl login", cause: err}
	case errors.Is(err, profile.ErrUnknown), errors.Is(err, profile.ErrName):
		return &failure{code: "profile_unknown", what: clean(err.Error()), next: "iapctl profile ls", exitCode: exitUsage, cause: err}
	case errors.Is(err, profile.ErrBindingWeaker), errors.Is(err, profile.ErrRelayKeyChanged), errors.Is(err, connect.ErrRelayChanged):
		return relayChanged(err)
	case errors.As(err, &outside):
		f := failureOf(outside.Err)
		f.next = "check " + outside.Source
		return f
	case errors.As(err, &dial):
		return dialFailure(dial)
	case tunnel.CodeOf(err) != tunnel.CodeNone:
		return codeFailure(tunnel.CodeOf(err), err)
	case errors.Is(err, connect.ErrNoSession), errors.Is(err, context.DeadlineExceeded):
		return unreachable(err)
	case errors.Is(err, context.Canceled):
		return errCanceled
	case errors.As(err, &urlError), errors.As(err, &netError):
		return networkFailure(err)
	}
	return &failure{code: "internal", what: "something went wrong that iapctl has no words for", next: "run it again with -v", cause: err}
}

func relayChanged(err error) *failure {
	what := "the relay's key is not the one this profile knows: somebody may be in between"
	if errors.Is(err, profile.ErrBindingWeaker) {
		what = "the relay proves itself more weakly than before: somebody may be in between"
	}
	switch {
	case errors.Is(err, relaykey.ErrRetired):
		what = "the relay shows a key that it had replaced: it was restored from an old backup, or somebody is in between"
	case errors.Is(err, relaykey.ErrForged), errors.Is(err, relaykey.ErrFork), errors.Is(err, relaykey.ErrTooLong):
		what = "the relay shows a new key, but nothing that the key known here vouches for it with: somebody may be in between"
	}
	return &failure{
		code: "relay_changed", what: what, cause: err,
		next: "ask the relay's operator; if it was set up anew: iapctl profile rm, then login",
	}
}

func unreachable(err error) *failure {
	what := "the relay cannot be reached"
	var op *net.OpError
	if errors.As(err, &op) && op.Addr != nil {
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			what += fmt.Sprintf(": %s refuses the connection", op.Addr)
		case op.Timeout():
			what += fmt.Sprintf(": %s does not answer", op.Addr)
		}
	}
	return &failure{code: "relay_unreachable", what: what, next: "check the network, then: iapctl status", cause: err}
}

// networkFailure tells apart why an HTTPS request to the relay failed.
func networkFailure(err error) *failure {
	var (
		dns       *net.DNSError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return &failure{code: "relay_unknown_name", what: fmt.Sprintf("no machine is called %s", clean(dns.Name)), next: "check the relay's name: iapctl login RELAY", cause: err}
	case errors.As(err, &authority), errors.As(err, &name), errors.As(err, &invalid), errors.As(err, &verify):
		return certificateFailure(err)
	case errors.As(err, &record):
		return &failure{code: "not_a_relay", what: "what answers there speaks no TLS", next: "check the relay's name and port", cause: err}
	}
	return unreachable(err)
}

func certificateFailure(err error) *failure {
	what := "the relay's certificate cannot be verified"
	var verify *tls.CertificateVerificationError
	if errors.As(err, &verify) && len(verify.UnverifiedCertificates) > 0 {
		what += fmt.Sprintf("; it is signed by %q", clean(verify.UnverifiedCertificates[0].Issuer.CommonName))
	}
	return &failure{code: "relay_certificate", what: what, next: "if the relay has an authority of its own: --ca-file FILE", cause: err}
}

func dialFailure(d *tunnel.DialError) *failure {
	noRelay := &failure{code: "not_a_relay", what: "what answers there is no relay", next: "check the relay's name and port", cause: d}
	switch {
	case d.Stage == "upgrade" && d.Code == tunnel.CodeRefused: // none of the statuses by which a relay says why
		return noRelay
	case d.Code != tunnel.CodeNone:
		return codeFailure(d.Code, d)
	}
	var refusal *tunnel.Refusal
	if errors.As(d, &refusal) {
		return codeFailure(refusal.Code, d)
	}
	switch d.Stage {
	case "proxy":
		return &failure{code: "proxy_failed", what: "the HTTP proxy does not let the connection through", next: "check HTTPS_PROXY and NO_PROXY", cause: d}
	case "tls":
		return networkFailure(d)
	case "upgrade":
		return noRelay
	}
	return networkFailure(d)
}

// codeWords are the words and the next step for the tunnel's codes.
var codeWords = map[tunnel.Code][2]string{
	tunnel.CodeLoginRequired:       {"the relay wants a new login", "iapctl login"},
	tunnel.CodeTokenInvalid:        {"the relay does not accept this login any more", "iapctl login"},
	tunnel.CodePopFailed:           {"this login belongs to another machine's key", "iapctl login"},
	tunnel.CodeRevoked:             {"this login was revoked", "iapctl login; refused again: ask the relay's operator"},
	tunnel.CodeSessionExpired:      {"the session has ended", "iapctl login"},
	tunnel.CodePolicyDenied:        {"the policy does not allow this", "iapctl whoami"},
	tunnel.CodePolicyChanged:       {"the policy was changed and no longer allows this", "iapctl resources"},
	tunnel.CodeUnknownResource:     {"there is no such resource, or it is not for you", "iapctl resources"},
	tunnel.CodeAgentOffline:        {"no agent serves the resource right now", "iapctl resources"},
	tunnel.CodeNotAnnounced:        {"no agent serves the resource right now", "iapctl resources"},
	tunnel.CodeUpstreamUnreachable: {"the agent is there, but the server behind it does not answer", "iapctl resources"},
	tunnel.CodeUpstreamReset:       {"the server behind the agent broke off", "try again"},
	tunnel.CodeLimitReached:        {"a limit is reached", "wait, then try again"},
	tunnel.CodeTooManyStreams:      {"too many requests at once", "wait, then try again"},
	tunnel.CodeOverloaded:          {"the relay is too busy", "wait, then try again"},
	tunnel.CodeVersionMismatch:     {"relay and iapctl do not speak the same protocol", "update iapctl"},
	tunnel.CodeProxyAuthRequired:   {"the HTTP proxy wants a name and password", "HTTPS_PROXY=http://USER:PASSWORD@PROXY:PORT"},
	tunnel.CodeProxyRefused:        {"the HTTP proxy refuses the relay's address", "check HTTPS_PROXY and NO_PROXY"},
	tunnel.CodeRelayShutdown:       {"the relay is shutting down", "wait, then try again"},
	tunnel.CodeNameMismatch:        {"the relay does not answer to that name", "use the name its operator gave you: iapctl login RELAY"},
	tunnel.CodeAuditUnavailable:    {"the relay cannot write its audit log and so lets nothing through", "tell the relay's operator"},
	tunnel.CodeStateUnavailable:    {"the relay cannot reach its state", "wait, then try again"},
	tunnel.CodeDead:                {"the connection to the relay was lost", "try again"},
	tunnel.CodeTimeout:             {"the relay took too long", "try again"},
}

func codeFailure(code tunnel.Code, err error) *failure {
	if code == tunnel.CodeBindingRefused || code == tunnel.CodeRelayUntrusted {
		return relayChanged(err)
	}
	words, ok := codeWords[code]
	if !ok {
		words = [2]string{"the relay ended it", "run it again with -v"}
	}
	var refusal *tunnel.Refusal
	if errors.As(err, &refusal) && refusal.Message != "" {
		words[0] = clean(refusal.Message)
	}
	return &failure{code: code.String(), what: words[0], next: words[1], cause: err}
}

func replyFailure(r tunnel.Reply) *failure {
	code := firstOf(r.Code, "refused")
	words := codeWords[tunnel.ParseCode(code)]
	f := &failure{code: clean(code), what: firstOf(clean(r.Message), words[0], "the relay refused it"), next: firstOf(words[1], "iapctl whoami")}
	if _, known := exitCodes[f.code]; !known {
		f.exitCode = exitDenied // a reason of the policy that this iapctl does not know
	}
	return f
}

// flagFailure and unknownCommand turn cobra's words into ours, with the nearest word that exists.
func flagFailure(cmd *cobra.Command, err error) error {
	return &failure{code: "usage", what: clean(err.Error()), next: cmd.CommandPath() + " --help", cause: err}
}

func unknownCommand(cmd *cobra.Command, word string) error {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	f := &failure{code: "usage", what: fmt.Sprintf("there is no command %q", clean(word)), next: cmd.CommandPath() + " --help"}
	if near := config.Nearest(word, names); near != "" {
		f.what += fmt.Sprintf("; did you mean %q?", near)
		f.next = cmd.CommandPath() + " " + near
	}
	return f
}

// printFailure writes an error to stderr in the form asked for.
func (a *app) printFailure(f *failure) {
	if a.output == "json" {
		doc := errorDocument{Schema: schemaName, Error: errorBody{Code: f.code, Message: f.what, Next: f.next, Exit: f.exit(), StepUp: f.stepUp}}
		if a.verbose && f.cause != nil {
			doc.Error.Cause = clean(f.cause.Error())
		}
		_ = json.NewEncoder(a.err).Encode(doc) // one line, also for the process that reads a background one's log
		return
	}
	lines := wrap(f.what, screenWidth-len("Error: "))
	fmt.Fprintf(a.err, "%s %s\n", a.ui.err.bad.Render("Error:"), strings.Join(lines, "\n       "))
	fmt.Fprintf(a.err, "%s\n", a.ui.err.dim.Render("Code:  "+f.code))
	if f.next != "" {
		fmt.Fprintf(a.err, "Next:  %s\n", a.ui.err.bold.Render(f.next))
	}
	if a.verbose && f.cause != nil {
		fmt.Fprintf(a.err, "Cause: %s\n", clean(f.cause.Error()))
	}
}
