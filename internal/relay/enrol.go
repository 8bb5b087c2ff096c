package relay

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/audit"
	"iap/internal/modelapi"
	"iap/internal/state"
	"iap/tunnel"
)

const (
	defaultJoinLife  = 10 * time.Minute // long enough to walk to the GPU box
	maxJoinLife      = 7 * 24 * time.Hour
	maxJoinResources = 64
	joinSecretBytes  = 32
	maxLabelBytes    = 128
)

// resourceName is what a resource may be called: it stands in URLs, grants and
// file names.
var resourceName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// createJoinToken makes a single-use token for one agent.
func (r *Relay) createJoinToken(ctx context.Context, q admin.NewJoinToken) (admin.JoinTokenCreated, error) {
	var none admin.JoinTokenCreated
	life, err := joinLife(q.TTL)
	if err != nil {
		return none, badRequest("ttl: " + err.Error())
	}
	if err := r.checkJoin(q); err != nil {
		return none, err
	}
	secret := make([]byte, joinSecretBytes)
	_, _ = rand.Read(secret) // never fails
	token := auth.JoinToken{
		Relay: r.cfg.Name, ID: newID("join"), Secret: secret,
		RelayKeyHash: auth.KeyHash(r.ring.Public()), Expires: r.now().Add(life).Truncate(time.Second).UTC(),
	}
	for _, one := range q.Resources {
		token.Resources = append(token.Resources, auth.JoinResource(one))
	}
	if err := token.Check(); err != nil { // what the agent would refuse to read
		return none, badRequest("join token: " + err.Error())
	}
	record := joinRecord{SecretHash: token.SecretHash(), Name: q.Name, Resources: q.Resources, Share: q.Share}
	if err := save(ctx, r.store, keyJoin+token.ID, 0, record, token.Expires); err != nil {
		return none, fmt.Errorf("store join token: %w", err)
	}
	return admin.JoinTokenCreated{ID: token.ID, Token: token.Encode(), Expires: token.Expires}, nil
}

func joinLife(text string) (time.Duration, error) {
	if text == "" {
		return defaultJoinLife, nil
	}
	life, err := time.ParseDuration(text)
	if err != nil || life <= 0 || life > maxJoinLife {
		return 0, fmt.Errorf("%q is no time from 1s to %s", text, maxJoinLife)
	}
	return life, nil
}

// checkJoin says what is wrong with a request for a join token.
func (r *Relay) checkJoin(q admin.NewJoinToken) error {
	switch {
	case !resourceName.MatchString(q.Name):
		return badRequest(fmt.Sprintf("name: %q; an agent's name is made of a-z, 0-9, dot, dash and underscore", q.Name))
	case len(q.Resources) == 0 || len(q.Resources) > maxJoinResources:
		return badRequest(fmt.Sprintf("resources: between 1 and %d are needed", maxJoinResources))
	}
	seen := map[string]bool{}
	for _, one := range q.Resources {
		if err := checkResource(one); err != nil {
			return err
		}
		if seen[one.Name] {
			return badRequest(fmt.Sprintf("resources: %q stands there twice", one.Name))
		}
		seen[one.Name] = true
		if err := r.checkTaken(one, q.Share); err != nil {
			return err
		}
	}
	return nil
}

func (r *Relay) checkTaken(one admin.JoinResource, share bool) error {
	holder, known := r.agents.taken(one)
	switch {
	case holder == "":
		return nil
	case !share:
		return &admin.Error{
			Status: http.StatusConflict, Code: "resource_taken", Message: fmt.Sprintf("resource %q is served by agent %s already", one.Name, holder),
			Hint: "add --share to let several agents serve it, or revoke the other one",
		}
	case known.Kind != one.Kind || !maps.Equal(known.Labels, one.Labels):
		return &admin.Error{
			Status: http.StatusBadRequest, Code: "bad_request", Message: fmt.Sprintf("resource %q exists with another kind or other labels; agents that share a name must be alike", one.Name),
			Hint: "say what the other agent does: " + alikeFlags(known),
		}
	}
	return nil
}

// alikeFlags are the flags that make a token for a resource as it is.
func alikeFlags(r admin.JoinResource) string {
	text := "--resource " + r.Name + "=" + r.Kind
	for _, label := range slices.Sorted(maps.Keys(r.Labels)) {
		text += fmt.Sprintf(" --label %s=%s", label, r.Labels[label])
	}
	return text + " --share"
}

func checkResource(one admin.JoinResource) error {
	if !resourceName.MatchString(one.Name) {
		return badRequest(fmt.Sprintf("resource %q: a name is made of a-z, 0-9, dot, dash and underscore, 63 at most", one.Name))
	}
	if !slices.Contains([]string{modelapi.KindModel, modelapi.KindHTTP, modelapi.KindTCP}, one.Kind) {
		return badRequest(fmt.Sprintf("resource %q: kind %q is none of model, http, tcp", one.Name, one.Kind))
	}
	for label, value := range one.Labels {
		if !resourceName.MatchString(label) || len(value) > maxLabelBytes || strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			return badRequest(fmt.Sprintf("resource %q: label %q is not of the form name=value", one.Name, label))
		}
	}
	return nil
}

// errJoinRefused is the one answer to every join that fails: an attacker who
// guesses learns nothing from it.
func errJoinRefused() error {
	return &admin.Error{
		Status: http.StatusForbidden, Code: "join_refused", Message: "this join token is not good here: wrong, used, expired or revoked",
		Hint: "make a new one on the relay: iap-relay admin agents token",
	}
}

// errGuessed is a try to join with what is no token of ours.
var errGuessed = errors.New("no such join token")

// join enrols an agent. The token's record is taken by one compare-and-swap,
// so of any number of racing enrolments one wins.
func (r *Relay) join(ctx context.Context, source string, q admin.JoinRequest) (admin.JoinReply, error) {
	e := audit.Event{Kind: audit.KindAgent, Decision: audit.Allow, Reason: "enrolled", Source: source, Detail: map[string]string{"token": q.TokenID}}
	if key := sourceKey(source); !r.joins.allowed(key, r.now()) {
		return admin.JoinReply{}, &admin.Error{
			Status: http.StatusTooManyRequests, Code: tunnel.CodeOverloaded.String(), Message: "too many failed tries to join from your address", Hint: "wait a minute",
		}
	}
	r.enrolling.Lock()
	defer r.enrolling.Unlock()
	ctx, free, err := r.enrolAlone(ctx)
	if err != nil {
		return admin.JoinReply{}, err
	}
	defer free()
	reply, err := r.tryJoin(ctx, q, e)
	if err != nil {
		if errors.Is(err, errGuessed) { // a token that was used shows that its holder had it
			r.joins.fail(sourceKey(source))
			err = errJoinRefused()
		}
		e.Decision, e.Reason = audit.Deny, "join_refused"
		if recordErr := r.audit.Denied(ctx, e); recordErr != nil {
			r.log.Error("record refused join", "error", recordErr)
		}
	}
	return reply, err
}

// enrolAlone keeps other relays from enrolling anybody, and learns whom they have
// enrolled: two tokens may name one resource.
func (r *Relay) enrolAlone(ctx context.Context) (context.Context, func(), error) {
	if !r.cfg.IsShared() {
		return ctx, func() {}, nil
	}
	held, free, err := r.cluster.Lock(ctx, keyEnrolling)
	if err != nil {
		return nil, nil, stateUnavailable(err)
	}
	for item, err := range state.All(held, r.store, keyAgent) {
		if err != nil {
			free()
			return nil, nil, stateUnavailable(err)
		}
		r.heardAgent(item, false)
	}
	return held, free, nil
}

// tryJoin spends the token, records the enrolment and stores the agent, in this
// order: what has no record does not exist. enrolling is held.
func (r *Relay) tryJoin(ctx context.Context, q admin.JoinRequest, e audit.Event) (admin.JoinReply, error) {
	var none admin.JoinReply
	record, err := r.spendToken(ctx, q)
	if err != nil {
		return none, err
	}
	e.Agent, e.Detail["name"], e.Detail["key"] = record.ID, record.Name, auth.KeyID(record.PublicKey)
	if err := r.audit.Record(ctx, e); err != nil {
		return none, auditUnavailable()
	}
	if err := save(ctx, r.store, keyAgent+record.ID, 0, record, time.Time{}); err != nil {
		return none, fmt.Errorf("store agent: %w", err)
	}
	r.agents.enrolled(record)
	key, chain := r.ring.Shown()
	relayKey := key.Public().(ed25519.PublicKey)
	signature := ed25519.Sign(key, auth.JoinReplyBytes(r.cfg.Name, q.TokenID, record.ID, record.PublicKey, relayKey, q.Nonce))
	return admin.JoinReply{AgentID: record.ID, RelayKey: relayKey, RelayChain: chain, Resources: record.Resources, Signature: signature}, nil
}

// spendToken checks a join request and marks its token as used.
func (r *Relay) spendToken(ctx context.Context, q admin.JoinRequest) (*agentRecord, error) {
	key := ed25519.PublicKey(q.PublicKey)
	if len(key) != ed25519.PublicKeySize || len(q.TokenID) > 64 || len(q.Nonce) != 32 || len(q.Secret) > 64 ||
		!ed25519.Verify(key, auth.JoinRequestBytes(r.cfg.Name, q.TokenID, "", key, q.Nonce), q.Signature) {
		return nil, errGuessed
	}
	presented := auth.JoinToken{ID: q.TokenID, Secret: q.Secret}.SecretHash()
	record := &agentRecord{ID: newID("agent"), PublicKey: key, Enrolled: r.now().UTC()}
	taken, err := update(ctx, r.store, keyJoin+q.TokenID, func(j *joinRecord) error {
		switch {
		case subtle.ConstantTimeCompare(presented, j.SecretHash) != 1:
			return errGuessed
		case j.UsedBy != "":
			return errJoinRefused()
		}
		for _, one := range j.Resources { // somebody may have enrolled for the name since the token was made
			if r.checkTaken(one, j.Share) != nil {
				return &admin.Error{
					Status: http.StatusConflict, Code: "resource_taken", Message: fmt.Sprintf("another agent serves %q by now", one.Name),
					Hint: "ask for a token made with --share, or revoke the other agent",
				}
			}
		}
		j.UsedBy = record.ID
		return nil
	})
	if errors.Is(err, state.ErrNotFound) {
		return nil, errGuessed
	}
	if err != nil {
		return nil, err
	}
	record.Name, record.Resources = taken.Name, taken.Resources
	return record, nil
}

func badRequest(message string) error {
	return &admin.Error{Status: http.StatusBadRequest, Code: "bad_request", Message: message}
}

func auditUnavailable() error {
	return &admin.Error{
		Status: http.StatusServiceUnavailable, Code: "audit_unavailable", Message: "the relay cannot write its audit log",
		Hint: "free space on its disk; the relay recovers by itself",
	}
}
