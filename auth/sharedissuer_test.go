package auth

import (
	"strings"
	"testing"
)

// sharedIssuers are people and programs of one provider.
func sharedIssuers(p *provider) (people, programs IssuerConfig) {
	people = p.issuerConfig()
	people.BearerAudiences, people.ExtraAudiences = []string{"api"}, []string{"account"}
	programs = IssuerConfig{
		Name: "robots", URL: p.issuer, Workload: true, Audiences: []string{"iap-programs"}, BearerAudiences: []string{"iap-programs-api"},
		ExtraAudiences: []string{"account"}, AuthorizedParties: []string{"nightly"}, HTTPClient: p.client(),
	}
	return people, programs
}

func TestPeopleAndProgramsOfOneProviderAreToldApartByAudience(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	people, programs := sharedIssuers(p)
	for name, v := range map[string]*Verifier{"people first": newVerifier(t, people, programs), "programs first": newVerifier(t, programs, people)} {
		for _, test := range []struct {
			use     Use
			changes map[string]any
			want    string // alias, or code
		}{
			{UseTunnel, map[string]any{"azp": testClient}, "corp"},
			{UseTunnel, nil, "corp"},
			{UseTunnel, map[string]any{"aud": "iap-programs", "azp": "nightly"}, "robots"},
			{UseTunnel, map[string]any{"aud": []string{"iap-programs", "account"}, "client_id": "nightly"}, "robots"},
			{UseBearer, map[string]any{"aud": "iap-programs-api", "azp": "nightly"}, "robots"},
			{UseBearer, map[string]any{"aud": "api", "azp": testClient}, "corp"},
			// A person, or a program that nobody named, with the audience of programs.
			{UseTunnel, map[string]any{"aud": "iap-programs", "azp": testClient}, CodePartyMismatch},
			{UseTunnel, map[string]any{"aud": "iap-programs", "azp": "nightly", "client_id": testClient}, CodePartyMismatch},
			{UseTunnel, map[string]any{"aud": "iap-programs"}, CodePartyMismatch},
			{UseTunnel, map[string]any{"aud": "iap-programs", "azp": "other"}, CodePartyMismatch},
			// A program with the audience of people.
			{UseTunnel, map[string]any{"azp": "nightly"}, CodePartyMismatch},
			{UseTunnel, map[string]any{"aud": []string{testClient, "iap-programs"}, "azp": "nightly"}, CodeAudienceMismatch},
			{UseTunnel, map[string]any{"aud": []string{"iap-programs", testClient}, "azp": testClient}, CodeAudienceMismatch},
			{UseTunnel, map[string]any{"aud": "iap-programs-api", "azp": "nightly"}, CodeAudienceMismatch},
			{UseTunnel, map[string]any{"aud": "account", "azp": "nightly"}, CodeAudienceMismatch},
			{UseTunnel, map[string]any{"aud": nil}, CodeClaimsInvalid},
		} {
			got, err := v.Verify(t.Context(), p.mint(test.changes), test.use)
			if err != nil {
				wantCode(t, err, test.want)
			} else if pr := got.Principal; pr.Issuer != test.want || pr.Workload != (test.want == "robots") {
				t.Errorf("%s: %v: %+v, want %s", name, test.changes, pr, test.want)
			}
		}
	}
}

func TestIssuersOfOneProviderMustBeApart(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	for says, change := range map[string]func(people, programs *IssuerConfig){
		"one issuer of people":      func(_, r *IssuerConfig) { r.Workload = false },
		"one of programs":           func(c, _ *IssuerConfig) { c.Workload = true },
		"name the clients":          func(_, r *IssuerConfig) { r.AuthorizedParties = nil },
		"is a client of issuer":     func(_, r *IssuerConfig) { r.AuthorizedParties = []string{"nightly", testClient} },
		`audience "iapctl" is one`:  func(_, r *IssuerConfig) { r.Audiences = []string{testClient} },
		`audience "account" is one`: func(_, r *IssuerConfig) { r.Audiences = []string{"account"}; r.ExtraAudiences = nil },
		`audience "api" is one`:     func(_, r *IssuerConfig) { r.BearerAudiences = []string{"api"} },
		`"iap-programs" is one`:     func(c, _ *IssuerConfig) { c.ExtraAudiences = []string{"iap-programs"} },
		"name is used twice":        func(c, r *IssuerConfig) { r.Name = c.Name },
	} {
		people, programs := sharedIssuers(p)
		change(&people, &programs)
		if v, err := NewVerifier(t.Context(), []IssuerConfig{people, programs}, VerifierOptions{}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %s", err, says)
			if err == nil {
				_ = v.Close()
			}
		}
	}
	people, programs := sharedIssuers(p)
	third := programs
	third.Name, third.Audiences, third.BearerAudiences = "third", []string{"x"}, nil
	if _, err := NewVerifier(t.Context(), []IssuerConfig{people, programs, third}, VerifierOptions{}); err == nil {
		t.Error("three issuers with one URL")
	}
}
