package relay

import (
	"encoding/json"
	"time"

	"iap/internal/admin"
	"iap/internal/guard"
	"iap/policy"
	"iap/tunnel"
)

// stepUpPause lies between two notices to one session: a program that tries again
// and again must not bury its user in questions.
const stepUpPause = 5 * time.Second

// stepUpOf is what a fresh login must be, in the words of the API. Where a grant
// only asks for a second factor, the issuer's configuration says by which class
// its provider is asked for one.
func (r *Relay) stepUpOf(id *identity, s *policy.StepUp) *admin.StepUp {
	if s == nil || id.principal.Workload {
		return nil // a program logs in nowhere
	}
	up := &admin.StepUp{MFA: s.MFA, ACR: s.ACR, MaxAge: int64(s.MaxAge / time.Second), Binding: s.Binding}
	if up.MFA && up.ACR == "" {
		for _, issuer := range r.cfg.Issuers {
			if issuer.Name == id.principal.Issuer {
				up.ACR = issuer.MFAACR
			}
		}
	}
	return up
}

// guardStepUp is the same for the guard's answer to a request.
func (r *Relay) guardStepUp(id *identity, s *policy.StepUp) *guard.StepUp {
	up := r.stepUpOf(id, s)
	if up == nil {
		return nil
	}
	return &guard.StepUp{MFA: up.MFA, ACR: up.ACR, MaxAge: time.Duration(up.MaxAge) * time.Second, Binding: up.Binding}
}

// tellStepUp tells iapctl that a fresh login would change a denial: it carries the
// requests of a program without reading them, and nobody else can log in.
func (r *Relay) tellStepUp(s *session, resource string, d policy.Decision) {
	id, now := s.identity(), r.now().UnixNano()
	before := s.toldStepUp.Load()
	if d.StepUp == nil || id.principal.Workload || now-before < int64(stepUpPause) || !s.toldStepUp.CompareAndSwap(before, now) {
		return
	}
	text, err := json.Marshal(admin.StepUpNotice{Resource: resource, Reason: d.Reason, Message: d.Message, StepUp: *r.stepUpOf(id, d.StepUp)})
	if err == nil {
		err = s.tunnel.Notify(tunnel.Notice{Kind: admin.NoticeStepUp, Text: string(text)})
	}
	if err != nil { // the denial itself says it too
		r.log.Debug("tell of a login that is due", "session", s.tunnel.ID(), "error", err)
	}
}
