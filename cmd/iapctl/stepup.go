package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/policy"
)

// A step up is a fresh login that a grant asks for: with a second factor, of a class, younger, or made for this machine's key.

// stepUpFailure is a denial that a fresh login would change. It is a login that is needed, not a right: exit status 4.
func (a *app) stepUpFailure(code, what string, s *admin.StepUp) *failure {
	return &failure{code: clean(code), what: clean(what), next: stepUpLogin(s).command(), exitCode: exitLogin, stepUp: s}
}

// stepUpLogin is the login that would do.
func stepUpLogin(s *admin.StepUp) loginOptions {
	return loginOptions{browser: s.Binding == auth.BindingNonce, acr: s.ACR, maxAge: time.Duration(s.MaxAge) * time.Second}
}

// command is the login as it is typed. Classes come from the relay: they are quoted for a shell.
func (o loginOptions) command() string {
	text := "iapctl login"
	if o.browser {
		text += " --browser"
	}
	if o.acr != "" {
		text += " --acr '" + strings.ReplaceAll(clean(o.acr), "'", `'\''`) + "'"
	}
	if o.maxAge > 0 {
		text += " --max-age " + policy.FormatDuration(o.maxAge)
	}
	return text
}

// ask adds to a login what is asked of the provider (RFC 9470, section 4). A browser may remember a login that is too old: only
// prompt=login is sure to begin a new one.
func (o loginOptions) ask(l *auth.Login) {
	if l.Params == nil {
		l.Params = map[string]string{}
	}
	if o.acr != "" {
		l.Params["acr_values"] = o.acr
	}
	if o.maxAge > 0 {
		l.Params["max_age"] = strconv.FormatInt(int64(o.maxAge/time.Second), 10)
		if o.browser {
			l.Params["prompt"] = "login"
		}
	}
}

// withStepUp does something and, if only a fresh login is missing, offers one on a terminal and does it once more.
func (a *app) withStepUp(ctx context.Context, do func() error) error {
	err := do()
	var f *failure
	var api *admin.Error
	switch {
	case errors.As(err, &f) && f.stepUp != nil:
	case errors.As(err, &api) && api.StepUp != nil:
		f = a.stepUpFailure(api.Code, api.Message, api.StepUp)
	default:
		return err
	}
	if !a.asksPeople() {
		return f
	}
	a.remark(capital(strings.TrimSuffix(f.what, ".")) + ".")
	if !a.confirm(ctx, "Log in again now?", true) {
		return f
	}
	if err := a.login(ctx, stepUpLogin(f.stepUp), ""); err != nil {
		return err
	}
	return do()
}

// stepUpOfHeader reads what the relay says of a denied request: X-Iap-Step-Up: reason=…; mfa; acr="…"; max_age=…; binding=….
func stepUpOfHeader(h http.Header) *admin.StepUp {
	value := h.Get("X-Iap-Step-Up")
	if value == "" {
		return nil
	}
	s := &admin.StepUp{}
	for part := range strings.SplitSeq(value, ";") {
		name, text, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch text = strings.Trim(text, `"`); name {
		case "mfa":
			s.MFA = true
		case "acr":
			s.ACR = text
		case "max_age":
			s.MaxAge, _ = strconv.ParseInt(text, 10, 64) // none is no harm: a login is offered all the same
		case "binding":
			s.Binding = text
		}
	}
	return s
}

// stepUpNotice reads a notice of the relay about a request that went through a listener here.
func stepUpNotice(text string) (admin.StepUpNotice, bool) {
	var n admin.StepUpNotice
	err := json.Unmarshal([]byte(text), &n)
	return n, err == nil && n.Resource != ""
}
