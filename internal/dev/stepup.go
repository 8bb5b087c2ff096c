package dev

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// wish is what a client asks of a login beside who it is (OIDC Core, section 3.1.2.1): a class, and how long ago the person may have
// signed in at most.
type wish struct {
	acr    []string // the preferred first
	maxAge *time.Duration
	again  bool // prompt=login
}

type wishKey struct{}

// withWish keeps the parameters of a device authorization request, of which op drops those it has no field for.
func withWish(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := wish{acr: strings.Fields(r.PostFormValue("acr_values")), again: r.PostFormValue("prompt") == "login"}
		if seconds, err := strconv.ParseUint(r.PostFormValue("max_age"), 10, 31); err == nil {
			age := time.Duration(seconds) * time.Second
			asked.maxAge = &age
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), wishKey{}, asked)))
	})
}

// RememberLogin says that the person has signed in at that time and is remembered since, as browsers are: a login that does not ask for a
// younger one counts from then.
func (p *Provider) RememberLogin(subject string, at time.Time) {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	p.store.remembered[subject] = at
}

// signInLocked is how a login of u counts that was asked for with these wishes.
func (s *store) signInLocked(u User, asked wish) (amr []string, acr string, at time.Time) {
	now := time.Now()
	amr, acr, at = u.AMR, u.ACR, now
	if before, ok := s.remembered[u.Subject]; ok && !asked.again && (asked.maxAge == nil || now.Sub(before) <= *asked.maxAge) {
		at = before
	}
	for _, class := range asked.acr {
		if methods, ok := u.Classes[class]; ok && class != u.ACR {
			amr, acr, at = slices.Clone(methods), class, now // the person is asked for more, and so is there
			break
		}
	}
	if at.Equal(now) {
		delete(s.remembered, u.Subject)
	}
	s.classes[u.Subject] = acr
	return amr, acr, at
}
