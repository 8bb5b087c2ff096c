package admin

import "context"

// AdminBackend is what the relay does for administrators: the same for root on
// the relay's machine and for a principal whom the policy lets use the verb.
// AdminHandler asks for the right and keeps the record; no method needs to.
type AdminBackend interface {
	AdminStatus(ctx context.Context) (Status, error)

	Sessions(ctx context.Context, q SessionQuestion) (SessionList, error)
	KillSession(ctx context.Context, q SessionAct) (Ended, error)
	KillSessions(ctx context.Context, q KillQuestion) (Ended, error)

	Agents(ctx context.Context) ([]Agent, error)
	JoinTokens(ctx context.Context) ([]JoinToken, error)
	CreateJoinToken(ctx context.Context, t NewJoinToken) (JoinTokenCreated, error)
	RevokeJoinToken(ctx context.Context, q ByID) (Done, error)
	RevokeAgent(ctx context.Context, q ByID) (Ended, error)
	RotateAgent(ctx context.Context, q ByID) (AgentRotation, error)
	RotateRelay(ctx context.Context, q NewRelayKey) (RelayRotation, error)

	Principals(ctx context.Context, q PrincipalQuestion) (PrincipalList, error)
	RevokePrincipal(ctx context.Context, q PrincipalAct) (Ended, error)
	RestorePrincipal(ctx context.Context, q PrincipalAct) (Done, error)

	AdminResources(ctx context.Context) (ResourceStates, error)
	AdminKeys(ctx context.Context) ([]Key, error)
	AdminRevokeKey(ctx context.Context, q ByID) (Done, error)
	AdminBudgets(ctx context.Context, q BudgetQuestion) (BudgetList, error)
	ResetBudgets(ctx context.Context, q BudgetReset) (BudgetList, error)
	AdminUsage(ctx context.Context, q UsageQuestion) (UsageReport, error)

	ShowPolicy(ctx context.Context) (PolicyInForce, error)
	AdminExplain(ctx context.Context, q Question) (Answer, error)
	ReloadPolicy(ctx context.Context) (PolicyReloaded, error)

	AuditEvents(ctx context.Context, q AuditQuestion) (AuditPage, error)
	// TailAudit hands lines over as they are written, until ctx ends or each fails.
	TailAudit(ctx context.Context, q AuditQuestion, each func(TailLine) error) error
}

// ByID names what a call is about by the id in its path.
type ByID struct {
	ID string `json:"-" path:"id"`
}

// Target is what the record of the call names.
func (q ByID) Target() string { return q.ID }

// Done is the answer to a call that answers nothing else.
type Done struct{}

// Act is a call as it is recorded.
type Act struct {
	Verb   string
	Target string
	Reason string // the caller's own words
	Read   bool   // it changes nothing: of the same reads by the same caller some records will do
	Err    error  // why the call was refused, or how it failed; nil: it is done, or about to be
	Denied bool   // the caller has no right to the verb
}

// Gate stands before every call of the admin API, for one caller.
type Gate interface {
	// May reports whether the caller may use the verb now; an *Error says why not.
	May(ctx context.Context, verb string) error
	// Record writes the act into the audit log.
	Record(ctx context.Context, a Act) error
	// Unrecorded is told of an act that was done although its record failed.
	Unrecorded(a Act, err error)
}
