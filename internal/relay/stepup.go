package relay

import (
	"time"

	"iap/internal/admin"
	"iap/policy"
)

// stepUpOf is what a fresh login must be, in the words of the API.
func stepUpOf(s *policy.StepUp) *admin.StepUp {
	if s == nil {
		return nil
	}
	return &admin.StepUp{MFA: s.MFA, ACR: s.ACR, MaxAge: int64(s.MaxAge / time.Second), Binding: s.Binding}
}
