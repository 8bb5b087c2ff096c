package relay

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"iap/auth"
	"iap/internal/guard"
	"iap/policy"
)

// identity is who a session belongs to. It never changes: a refresh puts a new
// one in its place.
type identity struct {
	token     *auth.Token    // nil for agents
	principal auth.Principal // with what the session's key adds
	policy    policy.Principal
	agent     *agentRecord // nil for users
	login     login        // of people
	key       string       // id of the session's key; "" for what no key is bound to
	newKey    bool         // first login of the principal with this key

	// Of a session: when it began or was given a newer token, and when it ends
	// unless it is given one. By the wall clock, which goes on while a machine sleeps.
	since, ends time.Time

	facts sync.Once // guards the next two
	// subject is what the policy is told of the principal, as JSON, and subjectID its hash.
	subject, subjectID string

	counting sync.Once // guards the next
	counted  []string  // groups that usage counts under, of one who has very many
}

// newIdentity is token's principal as the policy sees it.
func newIdentity(token *auth.Token) *identity {
	id := &identity{token: token, principal: token.Principal}
	id.policy = policyPrincipal(id.principal)
	return id
}

func policyPrincipal(p auth.Principal) policy.Principal {
	return policy.Principal{
		Issuer: p.Issuer, Subject: p.Subject, Groups: p.Groups, GroupsUnknown: p.GroupsUnknown, Claims: p.Claims,
		MFA: p.MFA.Asserted, MFASource: p.MFA.Source, ACR: p.ACR, AuthTime: p.AuthTime, Binding: p.Binding, Workload: p.Workload,
	}
}

// id is the principal's name, or the agent's.
func (i *identity) id() string {
	if i.agent != nil {
		return i.agent.ID
	}
	return i.principal.ID()
}

// Identity headers that the upstream receives. The guard has dropped whatever
// the caller sent under these names.
const (
	headerPrincipal = "X-Iap-Principal"
	headerEmail     = "X-Iap-Email"
	headerGroups    = "X-Iap-Groups"
	headerAssertion = "X-Iap-Assertion"
)

// setHeaders tells the upstream who calls. Values with control characters are
// left out: a group's name must not become a header of its own.
func (i *identity) setHeaders(h http.Header, r guard.Resource, a *assertions, now time.Time) {
	set := func(name, value string) {
		if value != "" && !strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			h.Set(name, value)
		}
	}
	set(headerPrincipal, i.id())
	if i.principal.EmailVerified {
		set(headerEmail, i.principal.Email)
	}
	set(headerGroups, joinGroups(a.groups(i)))
	if signed, err := a.sign(i, r.Name, now); err == nil {
		h.Set(headerAssertion, signed)
	}
}

// joinGroups lists the groups with commas. A group whose name holds a comma is
// left out: read back it would be two. So is one with spaces around it, which
// would be read as another.
func joinGroups(groups []string) string {
	clean := make([]string, 0, len(groups))
	for _, g := range groups {
		if !strings.ContainsRune(g, ',') && strings.TrimSpace(g) == g {
			clean = append(clean, g)
		}
	}
	return strings.Join(clean, ",")
}
