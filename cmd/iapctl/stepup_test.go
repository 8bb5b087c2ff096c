package main

import (
	"net/http"
	"reflect"
	"testing"
	"time"

	"iap/auth"
	"iap/internal/admin"
)

func TestLoginThatWouldDoIsTypedAsOneCommand(t *testing.T) {
	for want, s := range map[string]admin.StepUp{
		"iapctl login":                                             {MFA: true},
		"iapctl login --browser":                                   {Binding: "nonce"},
		"iapctl login --acr 'gold silver'":                         {ACR: "gold silver"},
		"iapctl login --max-age 12h":                               {MaxAge: 43200},
		`iapctl login --browser --acr 'a'\''$(x)' --max-age 1m30s`: {ACR: "a'$(x)", MaxAge: 90, Binding: "nonce"},
	} {
		if got := stepUpLogin(&s).command(); got != want {
			t.Errorf("%+v: %s, want %s", s, got, want)
		}
	}
}

func TestPersonIsNotAskedTheSameAgainAndAgain(t *testing.T) {
	now := time.Now()
	n := admin.StepUpNotice{Resource: "phi3", Message: "one", StepUp: admin.StepUp{MFA: true}}
	last := question{n, now}
	n.Message = "other words"
	if !last.again(n, now.Add(askPause-1)) || last.again(n, now.Add(askPause)) || (question{}).again(n, now) {
		t.Error("the pause is not kept")
	}
	n.StepUp.ACR = "gold"
	if last.again(n, now) {
		t.Error("another login is not offered")
	}
}

func TestLoginAsksTheProviderForWhatTheGrantWants(t *testing.T) {
	for _, c := range []struct {
		o    loginOptions
		want map[string]string
	}{
		{loginOptions{}, map[string]string{}},
		{loginOptions{acr: "gold silver"}, map[string]string{"acr_values": "gold silver"}},
		{loginOptions{maxAge: time.Hour}, map[string]string{"max_age": "3600"}},
		{loginOptions{maxAge: time.Hour, browser: true}, map[string]string{"max_age": "3600", "prompt": "login"}},
	} {
		var l auth.Login
		if c.o.ask(&l); !reflect.DeepEqual(l.Params, c.want) {
			t.Errorf("%+v asks %v", c.o, l.Params)
		}
	}
}

func TestStepUpIsReadFromTheAnswersHeader(t *testing.T) {
	for value, want := range map[string]*admin.StepUp{
		"":                    nil,
		"reason=mfa_required": {},
		`reason=acr_required; mfa; acr="gold silver"; max_age=43200; binding=nonce`: {MFA: true, ACR: "gold silver", MaxAge: 43200, Binding: "nonce"},
		`reason=x; max_age=soon; other=1`:                                           {},
	} {
		if got := stepUpOfHeader(http.Header{"X-Iap-Step-Up": {value}}); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v", value, got)
		}
	}
}
