package relay

import (
	"context"
	"net/http"

	"iap/internal/admin"
)

func notBuilt() error {
	return &admin.Error{Status: http.StatusNotImplemented, Code: "not_built", Message: "this relay does not know this call yet"}
}

// JoinTokens is not built.
func (a *adminAPI) JoinTokens(context.Context) ([]admin.JoinToken, error) { return nil, notBuilt() }

// RevokeJoinToken is not built.
func (a *adminAPI) RevokeJoinToken(context.Context, admin.ByID) (admin.Done, error) {
	return admin.Done{}, notBuilt()
}

// Principals is not built.
func (a *adminAPI) Principals(context.Context, admin.PrincipalQuestion) (admin.PrincipalList, error) {
	return admin.PrincipalList{}, notBuilt()
}

// ShowPolicy is not built.
func (a *adminAPI) ShowPolicy(context.Context) (admin.PolicyInForce, error) {
	return admin.PolicyInForce{}, notBuilt()
}

// AuditEvents is not built.
func (a *adminAPI) AuditEvents(context.Context, admin.AuditQuestion) (admin.AuditPage, error) {
	return admin.AuditPage{}, notBuilt()
}

// TailAudit is not built.
func (a *adminAPI) TailAudit(context.Context, admin.AuditQuestion, func(admin.AuditEvent) error) error {
	return notBuilt()
}
