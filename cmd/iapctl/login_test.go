package main

import (
	"strings"
	"testing"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/profile"
)

func TestIssuerIsTheAskedTheRememberedOrTheOnlyOne(t *testing.T) {
	one := []admin.DiscoveryIssuer{{Name: "corp"}}
	two := append(one, admin.DiscoveryIssuer{Name: "lab"})
	for _, c := range []struct {
		list              []admin.DiscoveryIssuer
		asked, remembered string
		want              string // empty: an error
	}{
		{one, "", "", "corp"},
		{two, "", "", ""},
		{two, "lab", "corp", "lab"},
		{two, "", "lab", "lab"},
		{two, "nope", "lab", ""},
		{one, "nope", "", ""},
		{one, "", "gone", "corp"},
		{two, "", "gone", ""},
		{nil, "", "", ""},
	} {
		got, err := chooseIssuer(c.list, c.asked, c.remembered)
		if got.Name != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%+v: %q, %v", c, got.Name, err)
		}
	}
}

func TestPromptWarnsNamesTheRelayAndPrintsNoEscapes(t *testing.T) {
	a, stdout, stderr := testApp(t)
	a.showPrompt(auth.DevicePrompt{
		VerificationURI: "https://x/\x1b]0;pwn\x07", VerificationURIComplete: "https://x/?c=1\n\x1b[2J", UserCode: "AB\x1b[1mCD",
		Expires: time.Now().Add(time.Hour),
	}, "iap.example.com")
	screen := stderr.String()
	if strings.ContainsAny(screen, "\x1b\x07") || stdout.Len() != 0 {
		t.Errorf("screen %q", screen)
	}
	for _, want := range []string{"iap.example.com", "only if you started this login"} {
		if !strings.Contains(screen, want) {
			t.Errorf("screen lacks %q:\n%s", want, screen)
		}
	}
}

func TestRelayOfTheEnvironmentGetsAProfileOfItsOwn(t *testing.T) {
	for relay, want := range map[string]string{
		"iap.example.com:8443": "env-iap.example.com-8443", "[::1]:443": "env-1--443", "IAP.Example": "env-iap.example", strings.Repeat("x", 300): "env-" + strings.Repeat("x", 60),
	} {
		got := profileNameOf(relay)
		if got != want || profile.CheckName(got) != nil {
			t.Errorf("%q: %q", relay, got)
		}
	}
}

func TestFirstProfileBecomesCurrentAndALaterOneDoesNot(t *testing.T) {
	a, _, _ := testApp(t)
	for _, name := range []string{"work", "home"} {
		p, err := a.dirs.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		p.Settings.Relay = name + ".example.com"
		if err := p.Save(); err != nil {
			t.Fatal(err)
		}
		if err := a.makeCurrent(p); err != nil {
			t.Fatal(err)
		}
	}
	if current, _ := a.dirs.Current(); current != "work" {
		t.Errorf("current profile %q", current)
	}
}
