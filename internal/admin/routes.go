package admin

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"iap/internal/plaintext"
	"iap/policy"
)

// record says how a call is recorded, and what becomes of it when it cannot be.
type record int

const (
	// recordFirst is of what gives rights or changes something: without its record
	// it is not done.
	recordFirst record = iota
	// recordAfter is of what takes rights away: it is done first, and goes on
	// whatever becomes of its record.
	recordAfter
	// recordRead is of reading what others do: without a record it is refused.
	recordRead
	// recordLook is of the lists that somebody needs who takes rights away, and so
	// must be had when nothing can be recorded.
	recordLook
)

// route is one call of the admin API: all of them stand in adminRoutes, and
// AdminHandler serves them and nothing else.
type route struct {
	verb    string
	pattern string // method and path
	summary string
	record  record
	operation[AdminBackend]
}

// adminRoutes is the admin API.
func adminRoutes() []route {
	return []route{
		{policy.VerbStatus, "GET /v1/admin/status", "How the relay is, with every session", recordLook, answers(AdminBackend.AdminStatus)},
		{policy.VerbSessionsList, "GET /v1/admin/sessions", "Live sessions", recordLook, asks(AdminBackend.Sessions)},
		{policy.VerbSessionsKill, "POST /v1/admin/sessions/{id}/kill", "End a login's sessions and refuse its key until a new login", recordAfter, asks(AdminBackend.KillSession)},
		{policy.VerbSessionsKill, "POST /v1/admin/sessions/kill", "End every session of a principal or of an agent", recordAfter, asks(AdminBackend.KillSessions)},
		{policy.VerbAgentsList, "GET /v1/admin/agents", "Enrolled agents", recordLook, answers(AdminBackend.Agents)},
		{policy.VerbAgentsToken, "GET /v1/admin/agents/tokens", "Join tokens, without their secrets", recordLook, answers(AdminBackend.JoinTokens)},
		{policy.VerbAgentsToken, "POST /v1/admin/agents/tokens", "Make a single-use join token", recordFirst, asks(AdminBackend.CreateJoinToken)},
		{policy.VerbAgentsToken, "POST /v1/admin/agents/tokens/{id}/revoke", "Make an unused join token worthless", recordAfter, asks(AdminBackend.RevokeJoinToken)},
		{policy.VerbAgentsRevoke, "POST /v1/admin/agents/{id}/revoke", "Refuse an agent's key and cut its sessions", recordAfter, asks(AdminBackend.RevokeAgent)},
		{policy.VerbAgentsRotate, "POST /v1/admin/agents/{id}/rotate", "Have an agent take a new key", recordFirst, asks(AdminBackend.RotateAgent)},
		{policy.VerbRelayRotate, "POST /v1/admin/relay/rotate", "Announce the relay's next key, and use it after a while", recordFirst, asks(AdminBackend.RotateRelay)},
		{policy.VerbPrincipalsList, "GET /v1/admin/principals", "Principals that are live, hold keys or are revoked", recordLook, asks(AdminBackend.Principals)},
		{policy.VerbPrincipalsRevoke, "POST /v1/admin/principals/{id}/revoke", "Refuse every key and token of a principal and end its sessions", recordAfter, asks(AdminBackend.RevokePrincipal)},
		{policy.VerbPrincipalsRestore, "POST /v1/admin/principals/{id}/restore", "Take a revocation back", recordFirst, asks(AdminBackend.RestorePrincipal)},
		{policy.VerbResourcesList, "GET /v1/admin/resources", "Every resource, with its agents", recordLook, answers(AdminBackend.AdminResources)},
		{policy.VerbKeysList, "GET /v1/admin/keys", "Everybody's keys for programs", recordLook, answers(AdminBackend.AdminKeys)},
		{policy.VerbKeysRevoke, "POST /v1/admin/keys/{id}/revoke", "End a key and what runs with it", recordAfter, asks(AdminBackend.AdminRevokeKey)},
		{policy.VerbBudgetsShow, "GET /v1/admin/budgets", "How limits stand", recordRead, asks(AdminBackend.AdminBudgets)},
		{policy.VerbBudgetsReset, "POST /v1/admin/budgets/reset", "Forget what was used", recordFirst, asks(AdminBackend.ResetBudgets)},
		{policy.VerbUsageRead, "GET /v1/admin/usage", "What everybody has used, added up", recordRead, asks(AdminBackend.AdminUsage)},
		{policy.VerbPolicyShow, "GET /v1/admin/policy", "The policy in force, with its text", recordRead, answers(AdminBackend.ShowPolicy)},
		{policy.VerbPolicyExplain, "POST /v1/admin/policy/explain", "What the policy says of somebody", recordRead, asks(AdminBackend.AdminExplain)},
		{policy.VerbPolicyReload, "POST /v1/admin/policy/reload", "Read the policy's files again", recordFirst, answers(AdminBackend.ReloadPolicy)},
		{policy.VerbAuditRead, "GET /v1/admin/audit", "Search the audit log", recordRead, asks(AdminBackend.AuditEvents)},
		{policy.VerbAuditRead, "GET /v1/admin/audit/tail", "Follow the audit log: a TailLine a line", recordRead, follows(AdminBackend.TailAudit)},
	}
}

// AdminHandler serves the admin API to one caller. Here alone the right is asked
// for and the record kept, before any method of b is reached.
func AdminHandler(b AdminBackend, g Gate) http.Handler {
	mux := http.NewServeMux()
	mountAdmin(mux, b, g)
	return withErrors(mux)
}

func mountAdmin(mux *http.ServeMux, b AdminBackend, g Gate) {
	mux.HandleFunc("GET "+OpenAPIPath, serveOpenAPI)
	for _, r := range adminRoutes() {
		mux.Handle(r.pattern, &gated{r, b, g})
	}
}

// gated is one call behind the gate.
type gated struct {
	route
	backend AdminBackend
	gate    Gate
}

func (h *gated) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q, bad := h.read(w, r)
	act := Act{Verb: h.verb, Read: h.record == recordRead || h.record == recordLook}
	if about, ok := q.(interface{ Target() string }); ok && bad == nil {
		act.Target = about.Target()
	}
	if about, ok := q.(interface{ Why() string }); ok && bad == nil {
		act.Reason, bad = about.Why(), checkReason(about.Why())
	}
	if err := h.gate.May(r.Context(), h.verb); err != nil {
		act.Denied, act.Err = true, err
		h.write(r.Context(), act)
		WriteError(w, err)
		return
	}
	if bad != nil {
		WriteError(w, bad)
		return
	}
	h.do(w, r, q, act)
}

// maxReason is what somebody reads in a list.
const maxReason = 200

// checkReason refuses what is no line to read.
func checkReason(text string) error {
	if len(text) > maxReason || !utf8.ValidString(text) || strings.ContainsFunc(text, plaintext.Hidden) {
		return &Error{Status: http.StatusBadRequest, Code: "bad_request", Message: fmt.Sprintf("reason: one line of at most %d bytes", maxReason)}
	}
	return nil
}

// do performs what the caller may do, and records it in the order that the call
// wants.
func (h *gated) do(w http.ResponseWriter, r *http.Request, q any, act Act) {
	if h.record != recordAfter {
		if err := h.gate.Record(r.Context(), act); err != nil && h.record != recordLook {
			h.gate.Unrecorded(act, err)
			WriteError(w, auditUnavailable())
			return
		}
	}
	if h.streams {
		h.stream(w, r, q)
		return
	}
	v, err := h.perform(r.Context(), h.backend, q, w)
	if act.Err = err; h.record == recordAfter || err != nil && h.record == recordFirst {
		h.write(r.Context(), act)
	}
	write(w, v, err)
}

// write records what cannot be held up by its record.
func (h *gated) write(ctx context.Context, act Act) {
	if err := h.gate.Record(ctx, act); err != nil {
		h.gate.Unrecorded(act, err)
	}
}

func auditUnavailable() error {
	return &Error{
		Status: http.StatusServiceUnavailable, Code: "audit_unavailable", Message: "the relay cannot write its audit log",
		Hint: "free space on its disk; the relay recovers by itself",
	}
}
