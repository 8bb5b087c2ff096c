package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// grantsOf writes grants in flow style, one a line, the first on line 2.
func grantsOf(t *testing.T, lines ...string) *Grants {
	t.Helper()
	text := "grants:\n"
	for i, line := range lines {
		if !strings.Contains(line, "resources:") {
			line += ", resources: [phi3]"
		}
		if !strings.Contains(line, "actions:") {
			line += ", actions: [chat]"
		}
		text += fmt.Sprintf("  - {name: g%d, %s}\n", i+1, line)
	}
	g, err := ParseGrants("g.yaml", []byte(text), twoIssuers())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGrantsThatNeverDecideAreFound(t *testing.T) {
	const ann, eng, all = `to: ["user:corp/ann"]`, `to: ["group:corp/eng"]`, `to: ["any:corp"]`
	for name, test := range map[string]struct {
		grants []string
		by     string // the grants that shadow the last; "" it decides
	}{
		"the same":                    {[]string{ann, ann}, "g1"},
		"somebody else":               {[]string{ann, eng}, ""},
		"everybody before a group":    {[]string{all, eng}, "g1"},
		"a group before everybody":    {[]string{eng, all}, ""},
		"everybody, but of programs":  {[]string{`to: ["any:ci"]`, `to: ["user:ci/x"]`}, ""},
		"a glob over a name":          {[]string{ann + `, resources: ["phi*"]`, ann}, "g1"},
		"a glob over a glob":          {[]string{ann + `, resources: ["*p?i*"]`, ann + `, resources: ["phi*"]`}, "g1"},
		"a narrower glob":             {[]string{ann + `, resources: ["phi*"]`, ann + `, resources: ["p*"]`}, ""},
		"one character":               {[]string{ann + `, resources: ["g?"]`, ann + `, resources: ["g*"]`}, ""},
		"all over a label":            {[]string{ann + `, resources: ["*"]`, ann + `, resources: ["label:a=b"]`}, "g1"},
		"a label over a name":         {[]string{ann + `, resources: ["label:a=b"]`, ann}, ""},
		"all models":                  {[]string{ann, ann + `, models: ["x"]`}, "g1"},
		"models over all":             {[]string{ann + `, models: ["x"]`, ann}, ""},
		"a star over all":             {[]string{ann + `, models: ["*"]`, ann}, "g1"},
		"a tag is latest":             {[]string{ann + `, models: ["Phi3", "phi3:*"]`, ann + `, models: ["phi3"]`}, "g1"},
		"latest without the bare":     {[]string{ann + `, models: ["phi3:*"]`, ann + `, models: ["phi3"]`}, ""},
		"fewer actions before":        {[]string{ann, ann + `, actions: [chat, embed]`}, ""},
		"more actions before":         {[]string{ann + `, actions: [chat, embed]`, ann}, "g1"},
		"two together":                {[]string{ann, eng, `to: ["user:corp/ann", "group:corp/eng"]`}, "g1 g2"},
		"two together by action":      {[]string{ann, ann + `, actions: [embed]`, ann + `, actions: [chat, embed]`}, "g1 g2"},
		"two and a rest":              {[]string{ann, eng, `to: ["user:corp/ann", "group:corp/eng", "user:corp/x"]`}, ""},
		"a requirement before":        {[]string{ann + `, require: {mfa: true}`, ann}, ""},
		"a requirement behind":        {[]string{ann, ann + `, require: {mfa: true}`}, "g1"},
		"asserted after any mfa":      {[]string{ann + `, require: {mfa: true}`, ann + `, require: {mfa: asserted}`}, "g1"},
		"any mfa after asserted":      {[]string{ann + `, require: {mfa: asserted}`, ann + `, require: {mfa: true}`}, ""},
		"a shorter age behind":        {[]string{ann + `, require: {max_auth_age: 2h}`, ann + `, require: {max_auth_age: 1h}`}, "g1"},
		"a longer age behind":         {[]string{ann + `, require: {max_auth_age: 1h}`, ann + `, require: {max_auth_age: 2h}`}, ""},
		"one class of two":            {[]string{ann + `, require: {acr: [a, b]}`, ann + `, require: {acr: [a]}`}, "g1"},
		"two classes of one":          {[]string{ann + `, require: {acr: [a]}`, ann + `, require: {acr: [a, b]}`}, ""},
		"a binding before":            {[]string{ann + `, require: {binding: nonce}`, ann}, ""},
		"a claim before":              {[]string{ann + `, require: {claims: {corp/env: prod}}`, ann}, ""},
		"a claim behind":              {[]string{ann, ann + `, require: {claims: {corp/env: prod}}`}, "g1"},
		"one value of two":            {[]string{ann + `, require: {claims: {corp/env: [prod, dev]}}`, ann + `, require: {claims: {corp/env: prod}}`}, "g1"},
		"two values of one":           {[]string{ann + `, require: {claims: {corp/env: prod}}`, ann + `, require: {claims: {corp/env: [prod, dev]}}`}, ""},
		"one claim more behind":       {[]string{ann + `, require: {claims: {corp/env: a}}`, ann + `, require: {claims: {corp/env: a, corp/ref: b}}`}, "g1"},
		"one claim more before":       {[]string{ann + `, require: {claims: {corp/env: a, corp/ref: b}}`, ann + `, require: {claims: {corp/env: a}}`}, ""},
		"egress behind":               {[]string{ann, ann + `, egress: true`}, ""},
		"egress before":               {[]string{ann + `, egress: true`, ann}, "g1"},
		"text only before":            {[]string{ann + `, media: []`, ann}, ""},
		"text only behind":            {[]string{ann, ann + `, media: []`}, "g1"},
		"fewer kinds behind":          {[]string{ann + `, media: [image, file]`, ann + `, media: [file]`}, "g1"},
		"every kind is not all kinds": {[]string{ann + `, media: [image, audio, video, file]`, ann}, ""},
		"keys behind":                 {[]string{ann, ann + `, keys: {max_ttl: 1d}`}, ""},
		"keys before":                 {[]string{ann + `, keys: {max_ttl: 1d}`, ann + `, keys: {max_ttl: 9d}`}, "g1"},
	} {
		g := grantsOf(t, test.grants...)
		warnings := g.Warnings([]string{"ci"})
		last := g.List[len(g.List)-1]
		got := ""
		for _, w := range warnings {
			if w.Grant != last.Name || !strings.HasPrefix(w.Message, "never decides") {
				continue
			}
			for _, e := range g.List {
				if strings.Contains(w.Message, fmt.Sprintf("grant %s on line %d", e.Name, e.Line)) {
					got = strings.TrimSpace(got + " " + e.Name)
				}
			}
		}
		if got != test.by {
			t.Errorf("%s: shadowed by %q, not %q: %+v", name, got, test.by, warnings)
		}
	}
}

func TestLimitsThatAreNeverReachedAreFound(t *testing.T) {
	for name, test := range map[string]struct{ limits, want string }{
		"one":                          {"{requests: 60/1m}", ""},
		"a day that binds":             {"{requests: [60/1m, 1000/24h]}", ""},
		"a day that cannot":            {"{requests: [60/1m, 90000/24h]}", "requests 90000/24h is never reached: that of requests 60/1m is"},
		"a minute that cannot":         {"{requests: [100/1m, 60/24h]}", "requests 100/1m is never reached"},
		"exactly as many":              {"{requests: [10/1m, 600/1h]}", "requests 600/1h is never reached"},
		"one less":                     {"{requests: [10/1m, 599/1h]}", ""},
		"a window in parts":            {"{requests: [10/1m, 15/90s]}", ""},
		"the same twice":               {"[{concurrent: 4}, {concurrent: 4}]", "concurrent 4 is never reached"},
		"shared by more":               {"[{requests: 60/1m}, {requests: 50/1m, per: grant}]", "requests 60/1m is never reached: that of requests 50/1m per grant"},
		"shared by more, and more":     {"[{requests: 60/1m}, {requests: 500/1m, per: grant}]", ""},
		"each less than all":           {"[{requests: 60/1m}, {requests: 60/1m, per: group}]", "requests 60/1m is never reached"},
		"only warned of before":        {"[{requests: 50/1m, mode: warn}, {requests: 60/1m}]", ""},
		"warned of too late":           {"[{requests: 60/1m}, {requests: 60/1m, mode: warn}]", "requests 60/1m is never reached"},
		"the larger answer":            {"[{max_output_tokens: 10, per: principal}, {max_output_tokens: 20, per: grant}]", "max_output_tokens 20 per grant is never reached"},
		"tokens and requests are two":  {"{requests: 5/1m, tokens: 5/1m}", ""},
		"a group nobody is named by":   {"{requests: 5/1m, per: group}", "without a group"},
		"tokens where there are none":  {"{tokens: 5/1m}, actions: [list-models, connect]", "tokens limits nothing"},
		"answers where there are none": {"{max_output_tokens: 5, tokens: 5/1m}, actions: [embed]", "max_output_tokens limits nothing"},
	} {
		to := `to: ["group:corp/a"]`
		if strings.Contains(test.want, "without a group") {
			to = `to: ["user:corp/a"]`
		}
		warnings := grantsOf(t, to+", limits: "+test.limits).Warnings(nil)
		switch {
		case test.want == "" && len(warnings) > 0, len(warnings) > 1:
			t.Errorf("%s: %+v", name, warnings)
		case test.want != "" && !slices.ContainsFunc(warnings, func(w Warning) bool { return strings.Contains(w.Message, test.want) }):
			t.Errorf("%s: %+v does not say %s", name, warnings, test.want)
		}
	}
}

func TestAnyOfAnIssuerOfProgramsIsWarnedOf(t *testing.T) {
	g := grantsOf(t, `to: ["any:ci"]`)
	if w := g.Warnings([]string{"ci"}); len(w) != 1 || !strings.Contains(w[0].Message, "any:ci names nobody") || w[0].Line != 2 {
		t.Errorf("got %+v", w)
	}
	if w := g.Warnings(nil); len(w) != 0 {
		t.Errorf("got %+v", w)
	}
}
