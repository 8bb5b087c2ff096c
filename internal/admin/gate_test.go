package admin

import (
	"context"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"iap/policy"
)

// guarded is a gate that tells in which order it was asked.
type guarded struct {
	deny   bool
	full   bool // nothing can be recorded
	events *[]string
	acts   []Act
}

func (g *guarded) May(_ context.Context, verb string) error {
	*g.events = append(*g.events, "may "+verb)
	if g.deny {
		return &Error{Status: http.StatusForbidden, Code: "verb_not_granted", Message: "no " + verb}
	}
	return nil
}

func (g *guarded) Record(_ context.Context, a Act) error {
	*g.events = append(*g.events, "record "+a.Verb)
	g.acts = append(g.acts, a)
	if g.full {
		return errors.New("disk full")
	}
	return nil
}

func (g *guarded) Unrecorded(a Act, _ error) { *g.events = append(*g.events, "unrecorded "+a.Verb) }

// serve performs one call of the table; done is put among the events by whoever
// answers it.
func serve(t *testing.T, r route, b AdminBackend, g *guarded) *httptest.ResponseRecorder {
	t.Helper()
	method, path, _ := strings.Cut(r.pattern, " ")
	perform := r.perform
	r.perform = func(ctx context.Context, b AdminBackend, q any, w http.ResponseWriter) (any, error) {
		*g.events = append(*g.events, "done")
		return perform(ctx, b, q, w)
	}
	mux := http.NewServeMux()
	mux.Handle(r.pattern, &gated{r, b, g})
	w := httptest.NewRecorder()
	var body string
	if method == http.MethodPost {
		body = "{}"
	}
	mux.ServeHTTP(w, httptest.NewRequest(method, strings.ReplaceAll(path, "{id}", "x"), strings.NewReader(body)))
	return w
}

func TestNoCallIsReachedWithoutItsVerbAndEachIsRecorded(t *testing.T) {
	for _, r := range adminRoutes() {
		t.Run(r.pattern, func(t *testing.T) {
			denied := &guarded{deny: true, events: new([]string)}
			w := serve(t, r, nil, denied) // a method of nobody's cannot be called
			var refused Error
			if err := json.Unmarshal(w.Body.Bytes(), &refused); err != nil || w.Code != http.StatusForbidden || refused.Code != "verb_not_granted" || !strings.Contains(refused.Message, r.verb) {
				t.Errorf("without the verb: %d %s", w.Code, w.Body)
			}
			if want := []string{"may " + r.verb, "record " + r.verb}; !slices.Equal(*denied.events, want) || !denied.acts[0].Denied || denied.acts[0].Err == nil {
				t.Errorf("without the verb: %v, %+v", *denied.events, denied.acts)
			}
			allowed := &guarded{events: new([]string)}
			w = serve(t, r, &backend{}, allowed)
			want := []string{"may " + r.verb, "record " + r.verb, "done"}
			if r.record == recordAfter {
				want = []string{"may " + r.verb, "done", "record " + r.verb}
			}
			if w.Code != http.StatusOK || !slices.Equal(*allowed.events, want) || allowed.acts[0].Denied || allowed.acts[0].Err != nil {
				t.Errorf("with the verb: %d, %v, want %v", w.Code, *allowed.events, want)
			}
			if strings.Contains(r.pattern, "{id}") && allowed.acts[0].Target != "x" {
				t.Errorf("the record does not name what it is about: %+v", allowed.acts[0])
			}
		})
	}
}

func TestWithAFullDiskRightsAreTakenAwayAndNotGiven(t *testing.T) {
	takes := []string{policy.VerbSessionsKill, policy.VerbAgentsRevoke, policy.VerbPrincipalsRevoke, policy.VerbKeysRevoke, policy.VerbAgentsToken + " POST /v1/admin/agents/tokens/{id}/revoke"}
	looks := []string{policy.VerbStatus, policy.VerbSessionsList, policy.VerbAgentsList, policy.VerbPrincipalsList, policy.VerbResourcesList, policy.VerbKeysList, policy.VerbAgentsToken + " GET /v1/admin/agents/tokens"}
	for _, r := range adminRoutes() {
		g := &guarded{full: true, events: new([]string)}
		w := serve(t, r, &backend{}, g)
		named := func(list []string) bool {
			return slices.Contains(list, r.verb) || slices.Contains(list, r.verb+" "+r.pattern)
		}
		switch done := slices.Contains(*g.events, "done"); {
		case named(takes) && (!done || w.Code != http.StatusOK || r.record != recordAfter || !slices.Contains(*g.events, "unrecorded "+r.verb)):
			t.Errorf("%s does not work with a full disk: %d %v", r.pattern, w.Code, *g.events)
		case named(looks) && (!done || w.Code != http.StatusOK):
			t.Errorf("%s cannot be seen with a full disk: %d %v", r.pattern, w.Code, *g.events)
		case !named(takes) && !named(looks) && (done || w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "audit_unavailable")):
			t.Errorf("%s was done without a record: %d %v", r.pattern, w.Code, *g.events)
		}
	}
}

func TestAFailedActIsRecordedAsFailed(t *testing.T) {
	for _, r := range adminRoutes() {
		g := &guarded{events: new([]string)}
		if w := serve(t, r, &backend{err: &Error{Status: http.StatusConflict, Code: "odd"}}, g); w.Code != http.StatusConflict {
			t.Errorf("%s: %d", r.pattern, w.Code)
		}
		last := g.acts[len(g.acts)-1]
		if reads := r.record == recordRead || r.record == recordLook; (last.Err == nil) != reads || last.Denied || last.Read != reads {
			t.Errorf("%s: %+v", r.pattern, g.acts)
		}
	}
}

func TestWhoHasNoRightLearnsNothingOfTheRequestItself(t *testing.T) {
	s := httptest.NewServer(AdminHandler(nil, &guarded{deny: true, events: new([]string)}))
	t.Cleanup(s.Close)
	for _, body := range []string{"", "{", strings.Repeat("x", 1<<20), `{"odd":1}`} {
		r, err := http.Post(s.URL+"/v1/admin/agents/tokens", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != http.StatusForbidden {
			t.Errorf("%.10q: %s", body, r.Status)
		}
	}
	r, err := http.Get(s.URL + "/v1/admin/audit?odd=1")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusForbidden {
		t.Errorf("%s", r.Status)
	}
}

// TestTheTableIsAllThereIs reads the package's source: outside the table no path
// of the administration is handled.
func TestTheTableIsAllThereIs(t *testing.T) {
	known, patterns := policy.Verbs(), map[string]bool{}
	for _, r := range adminRoutes() {
		if !slices.Contains(known, r.verb) || patterns[r.pattern] || r.summary == "" || !strings.Contains(r.pattern, " /v1/admin/") {
			t.Errorf("%+v", r)
		}
		patterns[r.pattern] = true
		known = append(known, r.verb)
	}
	for _, r := range ownRoutes() {
		if strings.Contains(r.pattern, "/admin") {
			t.Errorf("%s stands beside the table", r.pattern)
		}
	}
	for _, verb := range policy.Verbs() {
		if !slices.ContainsFunc(adminRoutes(), func(r route) bool { return r.verb == verb }) {
			t.Errorf("no call has the verb %s", verb)
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if name == "routes.go" || strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, isCall := n.(*ast.CallExpr)
			if !isCall || len(call.Args) == 0 {
				return true
			}
			method, isMethod := call.Fun.(*ast.SelectorExpr)
			if !isMethod || method.Sel.Name != "Handle" && method.Sel.Name != "HandleFunc" {
				return true
			}
			if pattern, isField := call.Args[0].(*ast.SelectorExpr); name != "server.go" || !isField || pattern.Sel.Name != "pattern" {
				t.Errorf("%s handles %v beside the table", name, call.Args[0])
			}
			return true
		})
	}
}

func TestQueriesAreReadStrictly(t *testing.T) {
	for query, fine := range map[string]bool{
		"": true, "limit=5&principal=corp%2Fa": true,
		"limit=-1": false, "limit=x": false, "limit=5&limit=6": false, "principal=": false, "principa=x": false, "%zz": false, "a;b": false,
	} {
		var q SessionQuestion
		if err := readQuery(query, &q); (err == nil) != fine {
			t.Errorf("%q: %v", query, err)
		}
	}
	for _, q := range []any{SessionQuestion{}, PrincipalQuestion{}, BudgetQuestion{}, UsageQuestion{}, AuditQuestion{}} {
		if values, err := queryOf(q); err != nil || len(values) > 0 {
			t.Errorf("%T: %v, %v", q, values, err)
		}
	}
}
