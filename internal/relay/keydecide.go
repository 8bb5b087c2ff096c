package relay

import (
	"fmt"
	"slices"

	"iap/internal/guard"
	"iap/policy"
)

// decide answers a question about a program with a key: what the key's own list
// holds is put to the policy, as a question about its owner. ask asks the policy
// about one action.
func (c *keyCaller) decide(q guard.Question, ask func(action string) policy.Decision) policy.Decision {
	switch {
	case c.key.ended.Load():
		return policy.Decision{Reason: "revoked", Message: messageKeyRevoked}
	case !c.key.covers(q.Resource.Name, q.Action, q.Model):
		return policy.Decision{Reason: reasonKeyScope, Message: c.outside(q)}
	case q.Action != policy.ActionAny:
		return c.key.within(ask(q.Action))
	}
	// Any action of the key's, not any action of its owner's; a no to all of them is
	// one policy's.
	var last policy.Decision
	for range keyTries {
		mixed := false
		for i, action := range c.key.Actions {
			before := last.Revision
			if last = c.key.within(ask(action)); last.Allow {
				return last
			}
			mixed = mixed || i > 0 && last.Revision != before
		}
		if !mixed {
			break
		}
	}
	return last
}

// keyTries bounds how often the actions of a key are asked about anew because the
// policy was replaced in between. What is left then is a denial.
const keyTries = 8

// within refuses a key that lives for longer than its grant lets keys live now.
func (k *programKey) within(d policy.Decision) policy.Decision {
	if life := k.Expires.Sub(k.Created); d.Allow && life > d.Keys.MaxTTL {
		return policy.Decision{
			Reason: reasonKeyLifetime, Revision: d.Revision, Grant: d.Grant,
			Message: fmt.Sprintf("the key %s was made for %s; the grant %s lets keys live for %s: make a new one", k.Name, policy.FormatDuration(life), d.Grant, policy.FormatDuration(d.Keys.MaxTTL)),
		}
	}
	return d
}

func (c *keyCaller) outside(q guard.Question) string {
	switch {
	case !slices.Contains(c.key.Resources, q.Resource.Name):
		return fmt.Sprintf("the key %s is not for this resource", c.key.Name)
	case q.Action != policy.ActionAny && !slices.Contains(c.key.Actions, q.Action):
		return fmt.Sprintf("the key %s is not for the action %s", c.key.Name, q.Action)
	}
	return fmt.Sprintf("the key %s is not for this model", c.key.Name)
}
