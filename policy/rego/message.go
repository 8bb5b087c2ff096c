package rego

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"iap/policy"
)

// maxQuoted bounds names from a request in a message.
const maxQuoted = 80

// message says to a person what a reason code of the built-in policy means for
// this question and what can be done about it.
func (l *loaded) message(q question, d policy.Decision) string {
	resource := quote(q.Resource.Name)
	require := l.byName[d.Grant].Require
	switch d.Reason {
	case policy.ReasonAllowed:
		return "allowed by grant " + quote(d.Grant)
	case policy.ReasonNoGrant:
		return fmt.Sprintf("no grant names %s: give an administrator a line that `iapctl whoami` prints", quote(q.Principal.ID()))
	case policy.ReasonResourceNotGranted:
		return fmt.Sprintf("your grants do not include the resource %s: `iapctl resources` lists yours, an administrator can grant more", resource)
	case policy.ReasonModelNotGranted:
		if q.Model == "" {
			return fmt.Sprintf("your grants on %s are for particular models and the request names none: name one in it", resource)
		}
		return fmt.Sprintf("your grants on %s do not include the model %s: ask an administrator for it", resource, quote(q.Model))
	case policy.ReasonActionNotGranted:
		if q.Model != "" { // they may include it for another
			return fmt.Sprintf("your grants on %s do not include the action %s on the model %s: ask an administrator for it", resource, quote(q.Action), quote(q.Model))
		}
		return fmt.Sprintf("your grants on %s do not include the action %s: ask an administrator for it", resource, quote(q.Action))
	case policy.ReasonEgressNotGranted:
		return fmt.Sprintf("the model %s sends prompts to another host, which needs a grant with `egress: true`", quote(q.Model))
	case policy.ReasonMediaNotGranted:
		return fmt.Sprintf("the request carries %s, and your grants on %s do not include that: send text alone, or ask an administrator", strings.Join(q.Media, " and "), resource)
	case policy.ReasonKeysNotGranted:
		return fmt.Sprintf("no grant of yours lets keys do this on %s: an administrator can add `keys: {max_ttl: 90d}` to one", resource)
	case policy.ReasonClaimsRequired:
		return claimsMessage(q, d.Grant, require)
	case policy.ReasonACRRequired:
		return fmt.Sprintf("grant %s needs a login of the class %s: run `iapctl login` again", quote(d.Grant), quote(strings.Join(require.ACR, " or ")))
	case policy.ReasonMFARequired:
		return mfaMessage(d.Grant, require)
	case policy.ReasonAuthTooOld:
		return ageMessage(q, d.Grant, require)
	case policy.ReasonBindingRequired:
		return fmt.Sprintf("grant %s needs a login made for this device's key: run `iapctl login --browser`", quote(d.Grant))
	case policy.ReasonDeniedByRule:
		return "a rule of this relay's policy denies it: ask its administrator"
	}
	return "denied by this relay's policy: ask its administrator"
}

// claimsMessage names the claims and not what they should be: `policy explain` tells
// that to whom it concerns.
func claimsMessage(q question, grant string, require policy.Require) string {
	var names []string
	for _, c := range require.UnmetClaims(q.Principal) {
		names = append(names, c.Key())
	}
	return fmt.Sprintf("grant %s is for tokens with other values of %s than yours has: ask an administrator for `policy explain`",
		quote(grant), quote(strings.Join(names, ", ")))
}

func mfaMessage(grant string, require policy.Require) string {
	if require.MFA == policy.MFAAsserted {
		return fmt.Sprintf("grant %s needs a login whose token states a second factor: run `iapctl login`, and ask an administrator if that does not help", quote(grant))
	}
	return fmt.Sprintf("grant %s needs a login with a second factor: run `iapctl login` and use one", quote(grant))
}

func ageMessage(q question, grant string, require policy.Require) string {
	if q.authTime == 0 {
		return fmt.Sprintf("grant %s needs a recent login, and the identity provider does not say when yours was (auth_time): ask its administrator", quote(grant))
	}
	return fmt.Sprintf("grant %s needs a login of the last %s, yours is of %s: run `iapctl login`",
		quote(grant), require.AgeText(), time.Unix(0, q.authTime).UTC().Format(time.RFC3339))
}

// refusal is a denial that needs no policy, because the question is not one.
func refusal(in policy.Input) (reason, message string) {
	switch {
	case in.Principal.Issuer == "" || in.Principal.Subject == "" || in.Resource.Name == "":
		return policy.ReasonInputInvalid, "the request has no verified identity or no resource"
	case in.Principal.GroupsUnknown:
		return policy.ReasonGroupsUnknown, "the identity provider did not put your groups into the token, mostly because there are too many: ask its administrator to send only those of this application"
	case in.Action != policy.ActionAny && !policy.IsAction(in.Action):
		return policy.ReasonActionUnknown, "this request is none that the relay knows how to judge"
	}
	return "", ""
}

// quote writes a name so that it cannot be mistaken for the sentence around it.
func quote(name string) string {
	if len(name) > maxQuoted {
		name = name[:maxQuoted] + "…"
	}
	return strconv.Quote(name)
}
