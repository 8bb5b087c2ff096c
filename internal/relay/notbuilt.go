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
