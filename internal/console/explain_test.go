package console

import (
	"reflect"
	"testing"

	"iap/internal/admin"
)

func TestExplainReadsWhoAndWhat(t *testing.T) {
	for name, test := range map[string]struct {
		flags explainFlags
		args  []string
		want  admin.Question
	}{
		"a resource":   {explainFlags{action: "chat", model: "m"}, []string{"phi3"}, admin.Question{Resource: "phi3", Action: "chat", Model: "m"}},
		"me":           {explainFlags{}, []string{"me", "phi3", "chat", "phi3:mini"}, admin.Question{Resource: "phi3", Action: "chat", Model: "phi3:mini"}},
		"somebody":     {explainFlags{}, []string{"user:corp/8a7f3c", "phi3"}, admin.Question{Resource: "phi3", Who: &admin.Subject{Principal: "corp/8a7f3c"}}},
		"of a group":   {explainFlags{mfa: true}, []string{"group:corp/eng", "phi3", "chat"}, admin.Question{Resource: "phi3", Action: "chat", Who: &admin.Subject{Groups: []string{"corp/eng"}, MFA: true}}},
		"with a claim": {explainFlags{claims: []string{"repo=a=b"}}, []string{"user:ci/x", "phi3"}, admin.Question{Resource: "phi3", Who: &admin.Subject{Principal: "ci/x", Claims: map[string][]string{"repo": {"a=b"}}}}},
		"a verb":       {explainFlags{action: "iap:sessions.kill"}, []string{"user:corp/a"}, admin.Question{Action: "iap:sessions.kill", Who: &admin.Subject{Principal: "corp/a"}}},
		"my own verb":  {explainFlags{action: "iap:sessions.kill"}, nil, admin.Question{Action: "iap:sessions.kill"}},
		"what else":    {explainFlags{media: []string{"image"}, egress: true, via: "key"}, []string{"phi3"}, admin.Question{Resource: "phi3", Media: []string{"image"}, Egress: true, Via: "key"}},
	} {
		if got, err := test.flags.question(test.args, true); err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, test := range []struct {
		flags explainFlags
		args  []string
	}{
		{explainFlags{mfa: true}, []string{"me", "phi3"}},
		{explainFlags{}, nil},
		{explainFlags{}, []string{"user:corp/a"}},
		{explainFlags{action: "chat"}, []string{"user:corp/a"}},
		{explainFlags{}, []string{"corp/ann", "phi3"}},
		{explainFlags{}, []string{"user:", "phi3"}},
		{explainFlags{claims: []string{"repo"}}, []string{"user:corp/a", "phi3"}},
	} {
		if q, err := test.flags.question(test.args, true); err == nil {
			t.Errorf("%v was read as %+v", test, q)
		}
	}
}
