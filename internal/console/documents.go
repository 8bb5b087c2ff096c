package console

import "iap/internal/admin"

// Schema is the first field of every document of -o json. Within iapctl/v1 fields
// are only added, never renamed, removed or given another type.
const Schema = "iapctl/v1"

// sessionsDocument: sessions ls.
type sessionsDocument struct {
	Schema   string              `json:"schema"`
	Sessions []admin.SessionInfo `json:"sessions"`
	Silent   []string            `json:"silent,omitempty"`
}

// endedDocument: whatever takes a right away, and principals restore.
type endedDocument struct {
	Schema string   `json:"schema"`
	Action string   `json:"action"` // kill, revoke or restore
	Names  []string `json:"names"`  // full ids
	admin.Ended
}

// principalsDocument: principals ls.
type principalsDocument struct {
	Schema     string                `json:"schema"`
	Principals []admin.PrincipalInfo `json:"principals"`
	Silent     []string              `json:"silent,omitempty"`
}

// agentsDocument: agents ls.
type agentsDocument struct {
	Schema string        `json:"schema"`
	Agents []admin.Agent `json:"agents"`
}

// tokensDocument: agents token ls.
type tokensDocument struct {
	Schema string            `json:"schema"`
	Tokens []admin.JoinToken `json:"tokens"`
}

// tokenDocument: agents token. Token is shown this once.
type tokenDocument struct {
	Schema string `json:"schema"`
	admin.JoinTokenCreated
}

// rotationDocument: agents rotate.
type rotationDocument struct {
	Schema string `json:"schema"`
	admin.AgentRotation
}

// relayRotationDocument: relay rotate.
type relayRotationDocument struct {
	Schema string `json:"schema"`
	admin.RelayRotation
}

// resourcesDocument: resources of iap-relay admin, resources --all of iapctl.
type resourcesDocument struct {
	Schema string `json:"schema"`
	admin.ResourceStates
}

// keysDocument: keys ls --all.
type keysDocument struct {
	Schema string      `json:"schema"`
	Keys   []admin.Key `json:"keys"`
}

// budgetsDocument: budgets, budgets show, budgets reset.
type budgetsDocument struct {
	Schema string `json:"schema"`
	admin.BudgetList
}

// policyDocument: policy show.
type policyDocument struct {
	Schema string `json:"schema"`
	admin.PolicyInForce
}

// reloadDocument: policy reload.
type reloadDocument struct {
	Schema string `json:"schema"`
	admin.PolicyReloaded
}

// explainDocument: policy explain.
type explainDocument struct {
	Schema   string `json:"schema"`
	Resource string `json:"resource"`
	Action   string `json:"action,omitempty"`
	Model    string `json:"model,omitempty"`
	admin.Answer
}

// statusDocument: relay status.
type statusDocument struct {
	Schema string `json:"schema"`
	admin.Status
}

// tailDocument: one line of audit tail that is no record.
type tailDocument struct {
	Schema  string `json:"schema"`
	Dropped uint64 `json:"dropped"` // so many records are missing here
}

// usageDocument: usage.
type usageDocument struct {
	Schema string `json:"schema"`
	admin.UsageReport
}
