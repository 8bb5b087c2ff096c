package relay

import (
	"context"
	"net/http"

	"iap/internal/admin"
)

func notBuilt() error {
	return &admin.Error{Status: http.StatusNotImplemented, Code: "not_built", Message: "this relay does not know this call yet"}
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
