package auth

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"
)

func joinToken() JoinToken {
	return JoinToken{
		Relay: "iap.example.com:8443", ID: "j-1a2b", Secret: bytes.Repeat([]byte{7}, 32), RelayKeyHash: make([]byte, 32),
		Expires:   time.Unix(1900000000, 0).UTC(),
		Resources: []JoinResource{{Name: "phi3", Kind: "model", Labels: map[string]string{"env": "prod", "site": ""}}, {Name: "db", Kind: "tcp"}},
	}
}

func TestJoinTokenSurvivesItsText(t *testing.T) {
	want := joinToken()
	text := want.Encode()
	if !strings.HasPrefix(text, "iapjoin1.") || strings.ContainsAny(text, " \n+/=") {
		t.Errorf("text %q", text)
	}
	for _, spelled := range []string{text, text + "\n", "  " + text} {
		got, err := ParseJoinToken(spelled)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	other := want
	other.ID = "j-2"
	if bytes.Equal(want.SecretHash(), other.SecretHash()) || len(want.SecretHash()) != 32 || bytes.Contains(want.SecretHash(), want.Secret[:4]) {
		t.Error("the stored hash does not depend on the id")
	}
}

func TestJoinTokenOutOfBoundsIsRefused(t *testing.T) {
	for name, change := range map[string]func(j *JoinToken){
		"relay":          func(j *JoinToken) { j.Relay = "" },
		"relay address":  func(j *JoinToken) { j.Relay = "https://iap.example.com" },
		"relay port":     func(j *JoinToken) { j.Relay = "iap.example.com:0" },
		"relay escape":   func(j *JoinToken) { j.Relay = "iap\x1b.example.com" },
		"id":             func(j *JoinToken) { j.ID = "../j" },
		"secret":         func(j *JoinToken) { j.Secret = j.Secret[:15] },
		"long secret":    func(j *JoinToken) { j.Secret = make([]byte, 65) },
		"key hash":       func(j *JoinToken) { j.RelayKeyHash = nil },
		"expiry":         func(j *JoinToken) { j.Expires = time.Time{} },
		"no resource":    func(j *JoinToken) { j.Resources = nil },
		"many resources": func(j *JoinToken) { j.Resources = make([]JoinResource, 65) },
		"star":           func(j *JoinToken) { j.Resources[0].Name = "*" },
		"zero width":     func(j *JoinToken) { j.Resources[0].Name = "phi3\u200b" },
		"path":           func(j *JoinToken) { j.Resources[0].Name = "../phi3" },
		"upper case":     func(j *JoinToken) { j.Resources[0].Name = "Phi3" },
		"trailing dot":   func(j *JoinToken) { j.Resources[0].Name = "phi3." },
		"name twice":     func(j *JoinToken) { j.Resources[1].Name = "phi3" },
		"kind":           func(j *JoinToken) { j.Resources[0].Kind = "admin" },
		"label":          func(j *JoinToken) { j.Resources[0].Labels = map[string]string{"a b": "c"} },
		"label value":    func(j *JoinToken) { j.Resources[0].Labels = map[string]string{"a": "c\n"} },
	} {
		j := joinToken()
		change(&j)
		if got, err := ParseJoinToken(j.Encode()); err == nil {
			t.Errorf("%s: accepted %+v", name, got)
		}
	}
	text := joinToken().Encode()
	for _, damaged := range []string{"", "iapjoin1.", text[:len(text)-5], text + "=", strings.Replace(text, "iapjoin1", "iapjoin2", 1), text + "." + text, "iapjoin1." + encode(`{"relay":"a","relay":"b"}`), "iapjoin1." + encode(`{"extra":1}`), "iapjoin1." + encode(`null`), "iapjoin1." + strings.Repeat("A", maxJoinToken)} {
		if _, err := ParseJoinToken(damaged); err == nil {
			t.Errorf("accepted %.40q", damaged)
		} else if len(damaged) > 20 && strings.Contains(err.Error(), damaged[9:20]) {
			t.Errorf("the error quotes the token: %v", err)
		}
	}
}
