package auth

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// troubles are the ways in which a provider is away or out of its mind, and what a login or a refresh is told then. None of
// them says anything about the person: none may end a login.
var troubles = map[string]struct {
	handler http.HandlerFunc
	code    string
}{
	"hangs": {func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}, CodeProviderUnreachable},
	"answers 500":                  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, CodeProviderUnreachable},
	"answers 502 with a code":      {func(w http.ResponseWriter, _ *http.Request) { answer(w, 502, map[string]any{"error": "invalid_grant"}) }, CodeProviderUnreachable},
	"refuses connections":          {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, CodeProviderUnreachable},
	"shows a page":                 {portal(http.StatusOK), CodeProviderMisbehaves},
	"shows a page of a portal":     {portal(http.StatusForbidden), CodeProviderMisbehaves},
	"answers with garbage":         {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("\x00\xff{{{")) }, CodeProviderMisbehaves},
	"answers with another's JSON":  {func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, []int{1}) }, CodeProviderMisbehaves},
	"answers with an empty object": {func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, map[string]any{}) }, CodeProviderMisbehaves},
}

func portal(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(status)
		_, _ = w.Write([]byte("<html><h1>Sign in to the guest network</h1>"))
	}
}

const (
	discoveryPath = "/.well-known/openid-configuration"
	sound         = "" // trouble of a provider that is back
)

// stages are what a client asks of a provider, in the order of a login's life. The same call is made again after the trouble.
var stages = map[string]struct {
	path string
	ask  func(t *testing.T, p *provider) error
}{
	"discovery":            {discoveryPath, askDevice},
	"device authorization": {"/device", askDevice},
	"refresh": {"/token", func(t *testing.T, p *provider) error {
		_, err := p.login().Refresh(t.Context(), "refresh-1")
		return err
	}},
	"refresh's discovery": {discoveryPath, func(t *testing.T, p *provider) error {
		_, err := p.login().Refresh(t.Context(), "refresh-1")
		return err
	}},
}

func askDevice(t *testing.T, p *provider) error {
	_, err := p.login().Device(t.Context(), func(DevicePrompt) {})
	return err
}

func TestProviderInTroubleAtAnyStageIsToldAsSuchAndServesAgainOnceItIsBack(t *testing.T) {
	for stage, s := range stages {
		for name, trouble := range troubles {
			t.Run(stage+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newProvider(t, "https://idp.test")
					p.poll = []string{sound}
					p.override[s.path] = trouble.handler
					failed := wantLogin(t, s.ask(t, p), trouble.code)
					if failed.Hint == "" {
						t.Error("it does not say what to do")
					}
					delete(p.override, s.path)
					if err := s.ask(t, p); err != nil {
						t.Errorf("once it is back: %v", err)
					}
				})
			})
		}
	}
}

// The person may have confirmed already: a poll that fails for a while must not throw the login away.
func TestDeviceLoginOutlastsAProviderThatIsAwayWhileItIsPolled(t *testing.T) {
	for name, trouble := range troubles {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newProvider(t, "https://idp.test")
				p.poll = []string{sound}
				p.override["/token"] = trouble.handler
				back := time.AfterFunc(time.Minute, func() {
					p.mu.Lock()
					defer p.mu.Unlock()
					delete(p.override, "/token")
				})
				defer back.Stop()
				if err := askDevice(t, p); err != nil {
					t.Errorf("the login was lost: %v", err)
				}
			})
		})
	}
}
