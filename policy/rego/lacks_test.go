package rego

import (
	"testing"

	"iap/policy"
)

func TestClosestGrantSaysInWordsWhatItLacked(t *testing.T) {
	e := newTestEngine(t, conditionGrants+`  - name: narrow
    to: ["user:corp/zoe"]
    resources: [phi3]
    models: ["phi3:*", qwen3]
    actions: [chat, embed]
`, nil)
	for name, test := range map[string]struct {
		change func(*policy.Input)
		want   string
	}{
		"model":      {func(in *policy.Input) { in.Model = "phi4:14b" }, "grant narrow would allow it but for: model phi4:14b is not among phi3:*, qwen3"},
		"nameless":   {func(in *policy.Input) { in.Model = "" }, "grant narrow would allow it but for: the request names no model, and the grant is for phi3:*, qwen3"},
		"two things": {func(in *policy.Input) { in.Model, in.Action = "x", "health" }, "grant narrow would allow it but for: model x is not among phi3:*, qwen3; action health is not among chat, embed"},
		"egress":     {func(in *policy.Input) { in.Egress = true }, "grant narrow would allow it but for: the model sends prompts to another host, and the grant has no egress: true"},
		"key":        {func(in *policy.Input) { in.Via = "key" }, "grant narrow would allow it but for: a key asks, and the grant has no keys:"},
		"media":      {func(in *policy.Input) { in.Resource.Name, in.Media = "phi4", []string{"audio", "image"} }, "grant text-only would allow it but for: the request carries audio and image, and the grant is for text alone"},
		"login":      {func(in *policy.Input) { in.Resource.Name = "gold" }, "grant careful would allow it but for: the token states no acr, and the grant wants gold or silver; the login was not made for the session's key (binding: nonce)"},
		"age": {func(in *policy.Input) {
			in.Resource.Name, in.Principal.Binding, in.Principal.ACR, in.Principal.AuthTime = "gold", "nonce", "gold", noon.Add(-13*3600e9)
		}, "grant careful would allow it but for: the login was 13h0m0s ago, and the grant wants one of the last 12h"},
		"nobody":  {func(in *policy.Input) { in.Principal = policy.Principal{Issuer: "ci", Subject: "job"} }, "grant team would allow it but for: ci/job is none of user:corp/root, group:corp/ml-eng, group:corp/ops"},
		"allowed": {func(*policy.Input) {}, ""},
	} {
		in := chat(person("zoe"), "phi3", "phi3:mini")
		test.change(&in)
		got := ""
		if near := e.Explain(t.Context(), in).Closest(); near != nil {
			got = near.Shortfall()
		}
		if got != test.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}
