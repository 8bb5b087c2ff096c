package auth

import (
	"slices"
	"testing"
	"time"
)

// ID-15: groups of any other shape are unknown, and never match by accident.
func TestID15VerifyReadsGroupsAsListOfStringsOnly(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	v := newVerifier(t, p.issuerConfig())
	source := map[string]any{"src1": map[string]any{"endpoint": "https://graph.test/groups"}}
	for _, test := range []struct {
		changes map[string]any
		groups  []string
		unknown bool
	}{
		{nil, nil, false},
		{map[string]any{"groups": []string{}}, []string{}, false},
		{map[string]any{"groups": []string{"a", "b"}}, []string{"a", "b"}, false},
		{map[string]any{"groups": "llm-users,admin"}, nil, true},
		{map[string]any{"groups": map[string]any{}}, nil, true},
		{map[string]any{"groups": []any{1, nil}}, nil, true},
		{map[string]any{"groups": []any{"a", 1}}, nil, true},
		{map[string]any{"groups": []any{[]string{"a"}}}, nil, true},
		{map[string]any{"hasgroups": true}, nil, true},
		{map[string]any{"hasgroups": "true", "groups": []string{"a"}}, nil, true},
		{map[string]any{"hasgroups": false, "groups": []string{"a"}}, []string{"a"}, false},
		{map[string]any{"_claim_names": map[string]any{"groups": "src1"}, "_claim_sources": source}, nil, true},
		{map[string]any{"_claim_names": map[string]any{"groups": "src1"}, "_claim_sources": source, "groups": []string{"a"}}, nil, true},
		{map[string]any{"_claim_names": map[string]any{"address": "src1"}, "_claim_sources": source, "groups": []string{"a"}}, []string{"a"}, false},
	} {
		got, err := v.Verify(t.Context(), p.mint(test.changes), UseTunnel)
		if err != nil {
			t.Errorf("%v: %v", test.changes, err)
			continue
		}
		if !slices.Equal(got.Principal.Groups, test.groups) || got.Principal.GroupsUnknown != test.unknown {
			t.Errorf("%v: groups %v, unknown %v", test.changes, got.Principal.Groups, got.Principal.GroupsUnknown)
		}
	}
}

func TestVerifyTakesMFAFromClaimsOrIssuer(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	asserted := p.issuerConfig()
	byProvider := p.issuerConfig()
	byProvider.MFA = "by-provider"
	conditional := p.issuerConfig()
	conditional.MFA, conditional.MFARequireClaim = "by-provider", "connector_id=corp"
	conditional.Claims = map[string]string{"connector_id": "/federated_claims/connector_id"}
	values := p.issuerConfig()
	values.MFAValues = []string{"c1", "gold"}
	workload := p.issuerConfig()
	workload.Workload = true
	connector := map[string]any{"federated_claims": map[string]any{"connector_id": "corp"}}
	for n, test := range []struct {
		config  IssuerConfig
		changes map[string]any
		source  string
	}{
		{asserted, nil, ""},
		{asserted, map[string]any{"amr": []string{"pwd"}}, ""},
		{asserted, map[string]any{"amr": []string{"pwd", "mfa"}}, MFASourceAMR},
		{asserted, map[string]any{"amr": "mfa"}, ""},
		{asserted, map[string]any{"amr": []any{"mfa", 1}}, ""},
		{asserted, map[string]any{"acr": "phr"}, MFASourceACR},
		{asserted, map[string]any{"acr": "1"}, ""},
		{values, map[string]any{"acr": "gold"}, MFASourceACR},
		{values, map[string]any{"acrs": []string{"c1"}}, MFASourceACRS},
		{values, map[string]any{"amr": []string{"mfa"}}, ""},
		{byProvider, nil, MFASourceIssuerPolicy},
		{byProvider, map[string]any{"amr": []string{"mfa"}}, MFASourceAMR},
		{conditional, nil, ""},
		{conditional, connector, MFASourceIssuerPolicy},
		{conditional, map[string]any{"federated_claims": map[string]any{"connector_id": "corp2"}}, ""},
		{workload, map[string]any{"amr": []string{"mfa"}}, ""},
	} {
		got, err := newVerifier(t, test.config).Verify(t.Context(), p.mint(test.changes), UseTunnel)
		if err != nil {
			t.Errorf("%d: %v", n, err)
		} else if got.Principal.MFA != (MFA{test.source != "", test.source}) {
			t.Errorf("%d: %+v, want source %q", n, got.Principal.MFA, test.source)
		}
	}
}

// ID-27, as far as it is the token's: audience and claims decide.
func TestID27VerifyReadsWorkloadTokens(t *testing.T) {
	p := newProvider(t, "https://ci.test")
	c := IssuerConfig{
		Name: "ci", URL: p.issuer, Audiences: []string{"https://relay.test"}, Workload: true, HTTPClient: p.client(),
		Claims: map[string]string{"repo": "/repository_id", "workflow": "/job_workflow_ref"}, MaxTokenAge: 10 * time.Minute,
	}
	v := newVerifier(t, c)
	raw := map[string]any{"aud": "https://relay.test", "sub": "repo:o@1/r@2:ref:refs/heads/main", "repository_id": "1234", "job_workflow_ref": "o/r/.github/workflows/ci.yml@refs/heads/main"}
	got, err := v.Verify(t.Context(), p.mint(raw), UseTunnel)
	if err != nil {
		t.Fatal(err)
	}
	if pr := got.Principal; !pr.Workload || pr.Binding != BindingNone || !slices.Equal(pr.Claims["repo"], []string{"1234"}) {
		t.Errorf("principal %+v", pr)
	}
	for _, aud := range []any{"https://github.com/o", "https://kubernetes.default.svc", []string{"https://relay.test", "https://kubernetes.default.svc"}} {
		raw["aud"] = aud
		_, err := v.Verify(t.Context(), p.mint(raw), UseTunnel)
		wantCode(t, err, CodeAudienceMismatch)
	}
}
