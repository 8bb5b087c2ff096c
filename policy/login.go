package policy

import (
	"slices"
	"strings"
	"time"
)

// maxClockSkew is how far ahead of our clock a provider's may run. A login
// later than that is not believed: it would never grow too old.
const maxClockSkew = 5 * time.Minute

// SecondFactor says whether a second factor is known, and whether the token itself
// states it. A source that is none of the MFASource constants counts for nothing.
func (p Principal) SecondFactor() (held, asserted bool) {
	if !p.MFA {
		return false, false
	}
	switch p.MFASource {
	case MFASourceAMR, MFASourceACR, MFASourceACRS:
		return true, true
	case MFASourceIssuerPolicy:
		return !p.Workload, false // the provider asks people for a second factor; a program has none
	}
	return false, false
}

// LoggedIn is when the person logged in, if that is known and can be believed.
func (p Principal) LoggedIn(now time.Time) (time.Time, bool) {
	return p.AuthTime, p.AuthTime.After(time.Unix(0, 0)) && !p.AuthTime.After(now.Add(maxClockSkew))
}

// Unmet lists the reasons why the login is not what is required, as the built-in
// policy gives them.
func (r Require) Unmet(p Principal, now time.Time) []string {
	held, asserted := p.SecondFactor()
	at, known := p.LoggedIn(now)
	var unmet []string
	for _, check := range []struct {
		met    bool
		reason string
	}{
		{len(r.UnmetClaims(p)) == 0, ReasonClaimsRequired},
		{r.MFA == MFANotRequired || r.MFA == MFARequired && held || r.MFA == MFAAsserted && asserted, ReasonMFARequired},
		{len(r.ACR) == 0 || slices.Contains(r.ACR, p.ACR), ReasonACRRequired},
		{r.MaxAuthAge == 0 || known && now.Before(at.Add(r.MaxAuthAge)), ReasonAuthTooOld},
		{r.Binding == "" || r.Binding == p.Binding, ReasonBindingRequired},
	} {
		if !check.met {
			unmet = append(unmet, check.reason)
		}
	}
	return unmet
}

// String says in words what a login must be.
func (r Require) String() string {
	var all []string
	switch r.MFA {
	case MFARequired:
		all = append(all, "a second factor")
	case MFAAsserted:
		all = append(all, "a second factor that the token states")
	}
	if len(r.ACR) > 0 {
		all = append(all, "a login of the class "+strings.Join(r.ACR, " or "))
	}
	if r.MaxAuthAge > 0 {
		all = append(all, "a login of the last "+r.AgeText())
	}
	if r.Binding != "" {
		all = append(all, "a login made for the session's key")
	}
	return strings.Join(all, " and ")
}
