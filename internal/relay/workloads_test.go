package relay

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/dev"
	"iap/internal/relay/settings"
	"iap/policy/rego"
	"iap/tunnel"
)

const workloadsPage = "../../docs/workloads.md"

// pageBlocks are the fenced blocks of docs/workloads.md in a language, those that begin with one of the words.
func pageBlocks(t testing.TB, language string, begins ...string) []string {
	t.Helper()
	data, err := os.ReadFile(workloadsPage)
	must(t, err)
	var found []string
	for i, part := range strings.Split("\n"+string(data), "\n```") {
		text, inside := strings.CutPrefix(part, language+"\n")
		if i%2 == 1 && inside && slices.ContainsFunc(begins, func(word string) bool { return strings.HasPrefix(text, word) }) {
			found = append(found, text+"\n")
		}
	}
	if len(found) == 0 {
		t.Fatalf("%s has no block that begins with %q", workloadsPage, begins)
	}
	return found
}

// joined is one file of several blocks with the same heading.
func joined(blocks []string, heading string) string {
	text := heading + "\n"
	for _, b := range blocks {
		text += strings.TrimPrefix(b, heading+"\n")
	}
	return text
}

// platforms is a relay that is configured as docs/workloads.md says, with all its issuers and grants. One provider plays them
// all: what tells them apart is what the tokens say.
type platforms struct {
	*system
	model *modelServer
	slow  *slowChat
}

func newPlatforms(t testing.TB) *platforms {
	t.Helper()
	p := &platforms{slow: newSlowChat()}
	p.model = newModelServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") == "text/event-stream" {
			p.slow.serve(w, r)
			return
		}
		completion(w, "hello")
	})
	p.system = prepareSystem(t, joined(pageBlocks(t, "yaml", "grants:"), "grants:"), func(c *settings.Config) { c.Issuers = pageIssuers(t) })
	keys := p.provider.Issuer() + "/keys"
	for i := range p.cfg.Issuers {
		if one := &p.cfg.Issuers[i]; one.KeysFile == "" {
			one.KeysURL = keys
		} else {
			r, err := http.Get(keys)
			must(t, err)
			defer r.Body.Close()
			set, err := io.ReadAll(r.Body)
			must(t, err)
			must(t, os.WriteFile(one.KeysFile, set, 0o600))
		}
	}
	p.start()
	p.startAgent(served{"phi3", "model", p.model.URL})
	return p
}

// pageIssuers are the issuers of the page, read as the relay reads its configuration.
func pageIssuers(t testing.TB) []settings.IssuerConfig {
	t.Helper()
	file := filepath.Join(t.TempDir(), "relay.yaml")
	text := "name: iap.example.com\ntls: {cert_file: c, key_file: k}\npolicy: {grants: grants.yaml}\n" + joined(pageBlocks(t, "yaml", "issuers:"), "issuers:")
	must(t, os.WriteFile(file, []byte(text), 0o600))
	c, err := settings.Load(file)
	must(t, err)
	return c.Issuers
}

// issuerURL is what tokens of the page's issuer say under iss.
func (p *platforms) issuerURL(alias string) string {
	for _, i := range p.cfg.Issuers {
		if i.Name == alias {
			return i.URL
		}
	}
	p.t.Fatalf("%s has no issuer %s", workloadsPage, alias)
	return ""
}

func (p *platforms) mint(alias string, form dev.Form, changes map[string]any) string {
	return p.provider.MintForm(form.With(map[string]any{"iss": p.issuerURL(alias)}).With(changes))
}

// outcome is what becomes of a program that asks the model in a session with this token: "allowed", or the code of the refusal.
func (p *platforms) outcome(token string) string {
	p.t.Helper()
	session, err := p.user(nil).present(tunnel.Interactive, token)
	if err != nil {
		return refusalCode(err)
	}
	defer session.Close(tunnel.CodeNone, "")
	st, reply, err := openStream(within(p.t), session, tunnel.Header{Resource: "phi3"})
	must(p.t, err)
	st.Abort(tunnel.CodeCanceled)
	if !reply.OK {
		return reasonOf(p.t, session)
	}
	r, err := postChat(client(p.t, session, tunnel.Header{Resource: "phi3"}), chatBody("phi3", false))
	must(p.t, err)
	defer r.Body.Close()
	_, _ = io.Copy(io.Discard, r.Body)
	if r.StatusCode == http.StatusOK {
		return "allowed"
	}
	return strings.TrimPrefix(r.Header.Get("X-Iap-Decision"), "deny; reason=")
}

// refusalCode is the code in brackets that ends the sentence of a refused token.
func refusalCode(err error) string {
	var refusal *tunnel.Refusal
	if !errors.As(err, &refusal) {
		return err.Error()
	}
	_, code, _ := strings.Cut(strings.TrimSuffix(refusal.Message, ")"), "(")
	return code
}

// reasonOf is why the policy would not let the session's owner chat, as it is told itself: who may not reach a resource is told
// no more than that there is none.
func reasonOf(t testing.TB, session *tunnel.Session) string {
	t.Helper()
	a, err := api(t, session).Explain(within(t), admin.Question{Resource: "phi3", Action: "chat", Model: "phi3:latest"})
	must(t, err)
	return a.Reason
}

const (
	ciAudience, ciBearer = "https://iap.example.com", "https://iap.example.com/api"
	k8sAudience          = "https://iap.example.com/k8s"
)

// What each platform's token opens and what no other token does, over the relay's own TLS, with the configuration of the page.
func TestID27WorkloadTokensOpenWhatTheirClaimsMatchAndNothingElse(t *testing.T) {
	p := newPlatforms(t)
	github, pod := dev.GitHubActions(ciAudience), dev.Kubernetes(k8sAudience)
	nightly := dev.Keycloak("iap-programs", "nightly")
	type set = map[string]any
	inPod := func(member string, value any) set {
		claims := map[string]any{}
		for name, v := range pod.Claims["kubernetes.io"].(map[string]any) {
			claims[name] = v
		}
		claims[member] = value
		return set{"kubernetes.io": claims}
	}
	old := time.Now().Add(-11 * time.Minute).Unix()
	for _, test := range []struct {
		name, alias string
		form        dev.Form
		changes     set
		want        string
	}{
		{"the job", "ci", github, nil, "allowed"},
		{"the job, subject with ids", "ci", dev.GitHubImmutable(ciAudience), nil, "allowed"},
		{"on a schedule", "ci", github, set{"event_name": "schedule"}, "allowed"},
		{"another repository", "ci", github, set{"repository_id": "4567891"}, "no_grant"},
		{"a repository of the old name", "ci", github, set{"repository_id": "999"}, "no_grant"},
		{"the name in place of the number", "ci", github, set{"repository_id": "octo-org/octo-repo"}, "no_grant"},
		{"no repository", "ci", github, set{"repository_id": nil}, "no_grant"},
		{"an object for a number", "ci", github, set{"repository_id": set{"456789": true}}, "no_grant"},
		{"a fork's workflow", "ci", github, set{"job_workflow_ref": "mallory/octo-repo/.github/workflows/evaluate.yml@refs/heads/main"}, "claims_required"},
		{"another branch's workflow", "ci", github, set{"job_workflow_ref": "octo-org/octo-repo/.github/workflows/evaluate.yml@refs/heads/main2"}, "claims_required"},
		{"a pull request", "ci", github, set{"event_name": "pull_request", "ref": "refs/pull/7/merge"}, "claims_required"},
		{"a pull request that runs as its target", "ci", github, set{"event_name": "pull_request_target"}, "claims_required"},
		{"no environment", "ci", github, set{"environment": nil, "sub": "repo:octo-org/octo-repo:ref:refs/heads/main"}, "claims_required"},
		{"an environment of another case", "ci", github, set{"environment": "Production"}, "claims_required"},
		{"the default audience", "ci", dev.GitHubActions("https://github.com/octo-org"), nil, auth.CodeAudienceMismatch},
		{"the front door's audience", "ci", dev.GitHubActions(ciBearer), nil, auth.CodeAudienceMismatch},
		{"two audiences", "ci", github, set{"aud": []string{ciAudience, "https://else.example"}}, auth.CodeAudienceMismatch},
		{"older than ten minutes", "ci", github, set{"iat": old, "nbf": old, "exp": old + 3600}, auth.CodeTokenTooOld},
		{"expired", "ci", github, set{"iat": old, "nbf": old, "exp": old + 300}, auth.CodeTokenExpired},
		{"another forge", "ci", github, set{"iss": "https://token.actions.githubusercontent.com/octo-org"}, auth.CodeIssuerUnknown},
		{"a branch name that is too long", "ci", github, set{"sub": "repo:octo-org/octo-repo:ref:refs/heads/" + strings.Repeat("x", 255)}, auth.CodeSubjectInvalid},

		{"the pod", "k8s", pod, nil, "allowed"},
		{"the account made anew", "k8s", pod, inPod("serviceaccount", set{"name": "evaluator", "uid": "1"}), "claims_required"},
		{"another account", "k8s", pod, set{"sub": "system:serviceaccount:ml:web"}, "action_not_granted"},
		{"another namespace", "k8s", pod, set{"sub": "system:serviceaccount:web:evaluator", "kubernetes.io": set{"namespace": "web"}}, "no_grant"},
		{"a claim with a dot and a slash in its name", "k8s", pod, set{"sub": "system:serviceaccount:web:x", "kubernetes.io": nil, "kubernetes.io/namespace": "ml"}, "no_grant"},
		{"the API server's audience", "k8s", dev.Kubernetes("https://kubernetes.default.svc.cluster.local"), nil, auth.CodeAudienceMismatch},
		{"of a secret, without an end", "k8s", pod, set{"exp": nil, "iat": nil, "nbf": nil}, auth.CodeClaimsInvalid},
		{"older than a session's token may be", "k8s", pod, set{"iat": old - 3000, "nbf": old - 3000, "exp": old + 7200}, auth.CodeTokenTooOld},
		{"a year long", "k8s", pod, set{"exp": time.Now().Add(365 * 24 * time.Hour).Unix()}, auth.CodeTokenLifetime},
		{"GitHub's claims of this issuer", "k8s", dev.GitHubActions(k8sAudience), nil, "no_grant"},

		{"the service", "services", nightly, nil, "allowed"},
		{"another service", "services", dev.Keycloak("iap-programs", "reports"), nil, "no_grant"},
		{"a client that is none of them", "services", dev.Keycloak("iap-programs", "mallory"), nil, auth.CodePartyMismatch},
		{"people's client", "services", dev.Keycloak("iap-programs", "iapctl"), nil, auth.CodePartyMismatch},
		{"two clients", "services", nightly, set{"client_id": "mallory"}, auth.CodePartyMismatch},
		{"people's audience", "services", nightly, set{"aud": "iapctl"}, auth.CodePartyMismatch},
		{"both audiences", "services", nightly, set{"aud": []string{"iap-programs", "iapctl"}}, auth.CodeAudienceMismatch},
		{"no audience of ours", "services", nightly, set{"aud": "account"}, auth.CodeAudienceMismatch},
		{"a refresh token", "services", nightly, set{"typ": "Refresh"}, auth.CodeTypeRefused},
	} {
		p.subtest("ID-27 "+test.name, func(t *testing.T) {
			if got := p.outcome(p.mint(test.alias, test.form, test.changes)); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
	stranger, err := dev.NewSigningKey("ES256")
	must(t, err)
	for alias, form := range map[string]dev.Form{"ci": github, "k8s": pod} { // by discovery's address and by file
		forged := p.provider.Mint(form.With(map[string]any{"iss": p.issuerURL(alias), "azp": nil}).Claims, dev.MintOptions{Key: stranger})
		if got := p.outcome(forged); got != auth.CodeSignatureInvalid {
			t.Errorf("a foreign signature for %s: %s", alias, got)
		}
	}
}

// The same tokens at the front door, where audiences are others.
func TestID27WorkloadTokensAtTheFrontDoor(t *testing.T) {
	p := newPlatforms(t)
	chat := func(token string) int {
		r, _, err := p.door("POST /r/phi3/v1/chat/completions HTTP/1.1\r\nHost: " + p.name + "\r\nAuthorization: Bearer " + token +
			"\r\nContent-Type: application/json\r\nConnection: close\r\n" + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(chatBody("phi3", false)), chatBody("phi3", false)))
		must(t, err)
		return r.StatusCode
	}
	for name, test := range map[string]struct {
		token string
		want  int
	}{
		"the job":               {p.mint("ci", dev.GitHubActions(ciBearer), nil), 200},
		"the tunnel's audience": {p.mint("ci", dev.GitHubActions(ciAudience), nil), 401},
		"a pull request":        {p.mint("ci", dev.GitHubActions(ciBearer), map[string]any{"event_name": "pull_request"}), 403},
		"another repository":    {p.mint("ci", dev.GitHubActions(ciBearer), map[string]any{"repository_id": "1"}), 403},
		"no front door at all":  {p.mint("k8s", dev.Kubernetes(k8sAudience), nil), 401},
	} {
		if got := chat(test.token); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

// A job's answer runs on under the tokens that follow, and ends with the first that does not allow it.
func TestJobsAnswerOutlivesItsTokenAndEndsWithItsRight(t *testing.T) {
	p := newPlatforms(t)
	github := dev.GitHubActions(ciAudience)
	now := time.Now().Unix()
	fresh := func(later int64, changes map[string]any) string {
		return p.mint("ci", github.With(map[string]any{"iat": now + later, "exp": now + later + 300}), changes)
	}
	session, err := p.user(nil).present(tunnel.Interactive, fresh(-200, nil))
	must(t, err)
	t.Cleanup(func() { _ = session.Close(tunnel.CodeNone, "") })
	q, err := http.NewRequest("POST", "http://phi3/v1/chat/completions", strings.NewReader(chatBody("phi3", true)))
	must(t, err)
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("Accept", "text/event-stream")
	r, err := client(t, session, tunnel.Header{Resource: "phi3"}).Do(q)
	must(t, err)
	defer r.Body.Close()
	<-p.slow.begun
	before := session.Expires()
	until, err := session.Refresh(within(t), fresh(-100, map[string]any{"sha": "0000"}))
	if err != nil || !until.After(before) {
		t.Fatalf("a new token of the job: until %s, was %s: %v", until, before, err)
	}
	if _, err := session.Refresh(within(t), fresh(-50, map[string]any{"sub": "repo:octo-org/octo-repo:ref:refs/heads/main"})); err == nil {
		t.Error("a token of another subject was taken")
	}
	select {
	case <-p.slow.ended:
		t.Fatal("a renewal ended the answer")
	default:
	}
	_, err = session.Refresh(within(t), fresh(0, map[string]any{"environment": "staging"}))
	must(t, err)
	text, _ := io.ReadAll(r.Body)
	if !strings.Contains(string(text), "claims_required") && !strings.Contains(string(text), "policy_changed") {
		t.Errorf("the answer ended with %s", text)
	}
	<-p.slow.ended
}

// Auth0 and Entra, as the page's table says they are configured.
func TestTokensOfOtherProvidersOfProgramsAreRead(t *testing.T) {
	provider, err := dev.StartProvider(t.Context(), dev.ProviderOptions{Algorithm: "RS256"})
	must(t, err)
	t.Cleanup(func() { provider.Close() })
	const program, application = "b7e6c1f2", "0d0ee1d5-6f1c-4c3f-8b0a-3f3d6b9d0a11"
	for name, test := range map[string]struct {
		url, audience string
		form          dev.Form
		claims        map[string]string
		subject       string
	}{
		"Auth0":    {"https://acme.eu.auth0.com/", "https://iap.example.com/programs", dev.Auth0("https://iap.example.com/programs", program), map[string]string{"client": "/azp", "kind": "/gty"}, program + "@clients"},
		"Entra":    {"https://login.microsoftonline.com/9188040d/v2.0", application, dev.Entra(application, program), map[string]string{"client": "/azp", "kind": "/idtyp", "role": "/roles"}, "c7a0d7a3-58b0-4c1e-9f0e-0f2d8a2f6d11"},
		"Entra v1": {"https://sts.windows.net/9188040d/", "api://iap", dev.Entra("api://iap", program).With(map[string]any{"azp": nil, "azpacr": nil, "appid": program, "appidacr": "1", "ver": "1.0"}), map[string]string{"client": "/appid"}, "c7a0d7a3-58b0-4c1e-9f0e-0f2d8a2f6d11"},
	} {
		i := settings.IssuerConfig{Name: "services", URL: test.url, Workload: true, Audiences: []string{test.audience}, AuthorizedParties: []string{program}, Claims: test.claims, KeysURL: provider.Issuer() + "/keys"}
		cfg, err := i.Verifier()
		must(t, err)
		v, err := auth.NewVerifier(t.Context(), []auth.IssuerConfig{cfg}, auth.VerifierOptions{})
		must(t, err)
		got, err := v.Verify(t.Context(), provider.MintForm(test.form.With(map[string]any{"iss": test.url})), auth.UseTunnel)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if pr := got.Principal; pr.Subject != test.subject || !pr.Workload || !slices.Equal(pr.Claims["client"], []string{program}) || len(pr.Claims) != len(test.claims) {
			t.Errorf("%s: %+v", name, pr)
		}
		for _, changes := range []map[string]any{{"azp": "other", "appid": "other"}, {"aud": "other"}} {
			if _, err := v.Verify(t.Context(), provider.MintForm(test.form.With(map[string]any{"iss": test.url}).With(changes)), auth.UseTunnel); err == nil {
				t.Errorf("%s with %v was accepted", name, changes)
			}
		}
		_ = v.Close()
	}
}

// Every example of docs/workloads.md is loaded, decides as the page says, and asks for tokens that the relay takes.
func TestTheWorkloadsPageIsTrue(t *testing.T) {
	dir := t.TempDir()
	issuers := pageIssuers(t)
	var names []string
	for _, i := range issuers {
		names = append(names, i.Name)
	}
	cfg := rego.Config{GrantsFile: filepath.Join(dir, "grants.yaml"), Issuers: names, Deadline: 30 * time.Second}
	must(t, os.WriteFile(cfg.GrantsFile, []byte(joined(pageBlocks(t, "yaml", "grants:"), "grants:")), 0o600))
	engine, err := rego.New(t.Context(), cfg)
	must(t, err)
	if w := engine.Grants().Warnings([]string{"ci", "k8s", "services"}); len(w) > 0 {
		t.Errorf("%+v", w)
	}
	cases := 0
	for i, text := range pageBlocks(t, "yaml", "people:", "cases:") {
		file := filepath.Join(dir, fmt.Sprintf("cases-%d.yaml", i))
		must(t, os.WriteFile(file, []byte(text), 0o600))
		results, err := rego.TestCases(t.Context(), cfg, file)
		must(t, err)
		for _, r := range results {
			cases++
			if !r.Passed {
				t.Errorf("%s: want %s, got %s", r.Name, r.Want, r.Got)
			}
		}
	}
	if cases < 10 {
		t.Errorf("only %d cases were found", cases)
	}
	for alias, block := range map[string]string{
		"ci":  pageBlocks(t, "yaml", "name: evaluate")[0],
		"k8s": pageBlocks(t, "yaml", "apiVersion:")[0],
	} {
		var document map[string]any
		must(t, yaml.Unmarshal([]byte(block), &document))
		at := slices.IndexFunc(issuers, func(i settings.IssuerConfig) bool { return i.Name == alias })
		if !strings.Contains(block, "--audience "+issuers[at].Audiences[0]) && !strings.Contains(block, `audience: "`+issuers[at].Audiences[0]+`"`) {
			t.Errorf("the job of %s asks for another audience than %q", alias, issuers[at].Audiences)
		}
	}
	step := pageBlocks(t, "yaml", "steps:")[0]
	if !strings.Contains(step, "&audience="+ciBearer+`"`) || !strings.Contains(pageBlocks(t, "yaml", "name: evaluate")[0], "id-token: write") {
		t.Error("the workflow's permission or the step's audience is missing")
	}
}
