package relay

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"iap/internal/admin"
	"iap/internal/audit"
	"iap/internal/plaintext"
	"iap/policy"
)

// adminGate asks the policy whether the caller may use a verb, and keeps the
// record of what it did. The zero session is root on the relay's machine, who is
// asked nothing: who can write the policy file is the first administrator.
type adminGate struct {
	relay   *Relay
	session *session
}

// localRoot is how records name who uses the relay's own socket.
const localRoot = "local:root"

func (g *adminGate) caller() string {
	if g.session == nil {
		return localRoot
	}
	return g.session.identity().id()
}

// May implements admin.Gate.
func (g *adminGate) May(ctx context.Context, verb string) error {
	if g.session == nil {
		return nil
	}
	if g.session.ctx.Err() != nil || g.relay.refusal(g.session.identity()) != nil { // it may still be closing
		return &admin.Error{Status: http.StatusForbidden, Code: "session_ended", Message: "this session has ended", Hint: "iapctl login"}
	}
	id := g.session.identity()
	d := g.relay.policy.MayAdminister(ctx, policy.Input{Principal: id.policy, Action: verb, Via: policy.ViaTunnel, Now: g.relay.now()})
	if d.Allow {
		return nil
	}
	return &admin.Error{
		Status: http.StatusForbidden, Code: d.Reason, Message: d.Message, Hint: "iapctl policy explain --action " + verb, StepUp: g.relay.stepUpOf(id, d.StepUp),
	}
}

// Record implements admin.Gate.
func (g *adminGate) Record(ctx context.Context, a admin.Act) error {
	e := audit.Event{
		Kind: audit.KindAdmin, Principal: g.caller(), Via: policy.ViaLocal, Action: a.Verb, Decision: audit.Allow, Revision: g.relay.policy.Revision(),
		Detail: map[string]string{"target": shortened(a.Target)},
	}
	if a.Reason != "" {
		e.Detail["reason"] = shortened(a.Reason)
	}
	if s := g.session; s != nil {
		id := s.identity()
		e.Via, e.Issuer, e.Binding, e.Session, e.Source = policy.ViaTunnel, id.principal.Issuer, id.principal.Binding, s.tunnel.ID(), s.source
	}
	var cause *admin.Error
	switch {
	case a.Denied:
		e.Decision, e.Reason = audit.Deny, "forbidden"
		if errors.As(a.Err, &cause) {
			e.Reason, e.Message = cause.Code, cause.Message
		}
		return g.relay.audit.Denied(ctx, e)
	case a.Err != nil:
		e.Detail["failed"] = "internal"
		if errors.As(a.Err, &cause) {
			e.Detail["failed"] = cause.Code
		}
	case a.Read && !g.relay.reads.first(g.caller()+" "+a.Verb+" "+a.Target, g.relay.now()):
		return nil
	}
	err := g.relay.audit.Record(ctx, e)
	if err != nil && a.Read {
		g.relay.reads.forget(g.caller() + " " + a.Verb + " " + a.Target)
	}
	return err
}

// shortened is a text of the caller's as it may stand in a record: of one line, and
// not so long that refusals fill the log.
func shortened(text string) string {
	const most = 512
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return plaintext.Clean(text)
}

// Unrecorded implements admin.Gate.
func (g *adminGate) Unrecorded(a admin.Act, err error) {
	g.relay.log.Error("record admin act", "verb", a.Verb, "caller", g.caller(), "target", a.Target, "error", err)
}

const (
	readPause = time.Minute // between two records of the same read by the same caller
	maxReads  = 4096        // remembered; beyond, reads are recorded each time
)

// recentReads are the reads of administrators that have a record of late: a list
// that is polled needs no record each time.
type recentReads struct {
	mu sync.Mutex
	at map[string]time.Time // guarded by mu
}

// first reports whether the read is to be recorded, and takes it as recorded.
func (r *recentReads) first(read string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, known := r.at[read]; known && now.Sub(at) < readPause && !now.Before(at) {
		return false
	}
	if r.at == nil {
		r.at = map[string]time.Time{}
	}
	if len(r.at) >= maxReads {
		for old, at := range r.at {
			if now.Sub(at) >= readPause {
				delete(r.at, old)
			}
		}
	}
	if len(r.at) < maxReads {
		r.at[read] = now
	}
	return true
}

// forget undoes first, whose record failed.
func (r *recentReads) forget(read string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.at, read)
}
