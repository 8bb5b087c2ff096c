package relay

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"

	"iap/internal/admin"
	"iap/internal/audit"
	"iap/tunnel"
)

// described is one call of the API's description.
type described struct{ method, path, verb string }

func describedCalls(t *testing.T) []described {
	t.Helper()
	var d struct {
		Paths map[string]map[string]struct {
			Verb string `json:"x-iap-verb"`
		} `json:"paths"`
	}
	must(t, json.Unmarshal(admin.OpenAPI(), &d))
	var all []described
	for path, methods := range d.Paths {
		for method, call := range methods {
			if call.Verb != "" || strings.HasPrefix(path, "/v1/admin") {
				all = append(all, described{strings.ToUpper(method), path, call.Verb})
			}
		}
	}
	return all
}

// call makes one of them, about what there is not, where the API is served.
func (d described) call(t *testing.T, dial func(context.Context) (net.Conn, error)) (*http.Request, *http.Response, string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}}
	r, err := http.NewRequestWithContext(within(t), d.method, "http://relay"+strings.ReplaceAll(d.path, "{id}", "corp%2Fnobody"), nil)
	must(t, err)
	answer, err := c.Do(r)
	must(t, err)
	defer answer.Body.Close()
	if strings.HasSuffix(d.path, "/tail") && answer.StatusCode == http.StatusOK {
		return r, answer, "" // it goes on as long as one reads
	}
	body, err := io.ReadAll(answer.Body)
	must(t, err)
	answer.Body = io.NopCloser(strings.NewReader(string(body)))
	return r, answer, string(body)
}

func dialAPI(session *tunnel.Session) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		st, reply, err := openStream(ctx, session, tunnel.Header{Service: "api"})
		if err == nil && !reply.OK {
			err = &replyError{reply}
		}
		return st, err
	}
}

func TestEveryAdminCallIsRefusedWithoutItsVerbAndServedWithNothingElse(t *testing.T) {
	all := describedCalls(t)
	if len(all) < 20 {
		t.Fatalf("%d calls", len(all))
	}
	var entries strings.Builder
	var verbs []string
	for _, d := range all {
		if !slices.Contains(verbs, d.verb) {
			verbs = append(verbs, d.verb)
			entries.WriteString(`  - {to: ["group:corp/` + d.verb[4:] + `"], verbs: ["` + d.verb + "\"]}\n")
		}
	}
	s := newSystem(t, "grants: []\nadmins:\n"+entries.String())
	sessions := map[string]*tunnel.Session{}
	for _, verb := range verbs {
		var others []string
		for _, other := range verbs {
			if other != verb {
				others = append(others, other[4:])
			}
		}
		_, sessions["only "+verb] = s.as("only-"+verb[4:], verb[4:])
		_, sessions["all but "+verb] = s.as("not-"+verb[4:], others...)
	}
	for _, d := range all {
		_, answer, body := d.call(t, dialAPI(sessions["all but "+d.verb]))
		if answer.StatusCode != http.StatusForbidden || !strings.Contains(body, `"verb_not_granted"`) || !strings.Contains(body, d.verb) {
			t.Errorf("%+v with every verb but its own: %d %s", d, answer.StatusCode, body)
		}
		if _, answer, body := d.call(t, dialAPI(sessions["only "+d.verb])); answer.StatusCode == http.StatusForbidden || answer.StatusCode >= 500 && answer.StatusCode != http.StatusNotImplemented {
			t.Errorf("%+v with its verb alone: %d %s", d, answer.StatusCode, body)
		}
	}
	for _, verb := range verbs {
		for who, decision := range map[string]string{"corp/not-" + verb[4:]: audit.Deny, "corp/only-" + verb[4:]: audit.Allow} {
			e := s.awaitEvent(who, func(e audit.Event) bool {
				return e.Kind == audit.KindAdmin && e.Principal == who && e.Action == verb
			})
			if e.Decision != decision {
				t.Errorf("%+v", e)
			}
		}
	}
	// The front door serves none of it, whatever token or key comes.
	for _, d := range all {
		bearer := s.bearer(map[string]any{"sub": "only-" + d.verb[4:], "groups": []string{d.verb[4:]}})
		answer, _, err := s.door(d.method + " " + strings.ReplaceAll(d.path, "{id}", "x") + " HTTP/1.1\r\nHost: " + s.name + "\r\nConnection: close\r\nContent-Length: 0\r\n" + bearer + "\r\n\r\n")
		must(t, err)
		if answer.StatusCode != http.StatusNotFound {
			t.Errorf("the public port answers %s %s: %d", d.method, d.path, answer.StatusCode)
		}
	}
}

func TestAnswersAreAsTheyAreDescribed(t *testing.T) {
	document, err := libopenapi.NewDocument(admin.OpenAPI())
	must(t, err)
	v, errs := validator.NewValidator(document)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	s := newSystem(t, desks)
	s.startAgent(served{"phi3", "model", newModelServer(t, func(w http.ResponseWriter, _ *http.Request) { completion(w, "x") }).URL})
	_, session := s.as("alice", "ml-eng")
	s.as("root")
	_, err = s.admin.RevokePrincipal(within(t), "corp/gone", "left")
	must(t, err)
	_, err = s.admin.CreateJoinToken(within(t), admin.NewJoinToken{Name: "gpu-2", Resources: []admin.JoinResource{{Name: "web", Kind: "http"}}})
	must(t, err)
	socket := func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.cfg.AdminSocket)
	}
	check := func(d described, dial func(context.Context) (net.Conn, error)) {
		r, answer, body := d.call(t, dial)
		if strings.HasSuffix(d.path, "/tail") {
			return
		}
		if ok, problems := v.ValidateHttpResponse(r, answer); !ok {
			for _, p := range problems {
				t.Errorf("%s %s: %s: %s %+v\n%s", d.method, d.path, p.Message, p.Reason, p.SchemaValidationErrors, body)
			}
		}
	}
	for _, d := range describedCalls(t) {
		if d.path != "/v1/admin/relay/rotate" { // that is a deed
			check(d, socket)
		}
	}
	for _, path := range []string{"/v1/whoami", "/v1/resources", "/v1/status", "/v1/keys", "/v1/usage", "/v1/openapi.json"} {
		check(described{method: "GET", path: path}, dialAPI(session))
	}
	check(described{method: "POST", path: "/v1/budgets"}, dialAPI(session))
}
