package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
)

// backend answers every call with what it was asked, or with err.
type backend struct {
	err  error
	last string
}

func (b *backend) Whoami(context.Context) (Whoami, error) {
	return Whoami{Principal: "corp/alice"}, b.err
}

func (b *backend) Resources(context.Context) (ResourceList, error) {
	return ResourceList{Resources: []Resource{{Name: "phi3"}}}, b.err
}
func (b *backend) Status(context.Context) (Status, error) { return Status{Relay: "r"}, b.err }
func (b *backend) Explain(_ context.Context, q Question) (Answer, error) {
	b.last = fmt.Sprintf("%+v", q)
	return Answer{Allow: true, Reason: "allowed"}, b.err
}
func (b *backend) AdminStatus(context.Context) (Status, error) { return Status{Audit: "ok"}, b.err }
func (b *backend) Agents(context.Context) ([]Agent, error)     { return []Agent{{ID: "agent-1"}}, b.err }

func (b *backend) CreateJoinToken(_ context.Context, q NewJoinToken) (JoinTokenCreated, error) {
	b.last = fmt.Sprintf("%+v", q)
	return JoinTokenCreated{Token: "t", Expires: time.Unix(1, 0).UTC()}, b.err
}

func (b *backend) saw(call, id string) (Done, error) {
	b.last = call + " " + id
	return Done{}, b.err
}

// ended answers like saw.
func (b *backend) ended(call, id string) (Ended, error) {
	_, err := b.saw(call, id)
	return Ended{Sessions: 2, Streams: 5}, err
}

func (b *backend) RevokeAgent(_ context.Context, q ByID) (Ended, error) {
	return b.ended("revoke", q.ID)
}

func (b *backend) KillSession(_ context.Context, q SessionAct) (Ended, error) {
	return b.ended("kill", q.ID)
}

func (b *backend) KillSessions(_ context.Context, q KillQuestion) (Ended, error) {
	return b.ended("kill all of", q.Principal+q.Agent+" "+q.Reason)
}

func (b *backend) RevokePrincipal(_ context.Context, q PrincipalAct) (Ended, error) {
	return b.ended("revoke principal", q.ID+" "+q.Reason)
}

func (b *backend) RestorePrincipal(_ context.Context, q PrincipalAct) (Done, error) {
	return b.saw("restore principal", q.ID+" "+q.Reason)
}

func (b *backend) AdminRevokeKey(_ context.Context, q ByID) (Done, error) {
	return b.saw("admin revoke key", q.ID)
}

func (b *backend) RevokeJoinToken(_ context.Context, q ByID) (Done, error) {
	return b.saw("revoke token", q.ID)
}

func (b *backend) JoinTokens(context.Context) ([]JoinToken, error) {
	return []JoinToken{{ID: "join-1"}}, b.err
}

func (b *backend) RotateAgent(_ context.Context, q ByID) (AgentRotation, error) {
	b.last = "rotate " + q.ID
	return AgentRotation{}, b.err
}

func (b *backend) RotateRelay(context.Context, NewRelayKey) (RelayRotation, error) {
	return RelayRotation{}, b.err
}

func (b *backend) Sessions(_ context.Context, q SessionQuestion) (SessionList, error) {
	b.last = fmt.Sprintf("%+v", q)
	return SessionList{Next: "n"}, b.err
}

func (b *backend) Principals(_ context.Context, q PrincipalQuestion) (PrincipalList, error) {
	b.last = fmt.Sprintf("%+v", q)
	return PrincipalList{Next: "n"}, b.err
}

func (b *backend) AdminResources(context.Context) (ResourceStates, error) {
	return ResourceStates{}, b.err
}

func (b *backend) AdminUsage(_ context.Context, q UsageQuestion) (UsageReport, error) {
	b.last = fmt.Sprintf("%+v", q)
	return UsageReport{}, b.err
}

func (b *backend) Usage(_ context.Context, q UsageQuestion) (UsageReport, error) {
	b.last = fmt.Sprintf("own %+v", q)
	return UsageReport{}, b.err
}

func (b *backend) ShowPolicy(context.Context) (PolicyInForce, error) {
	return PolicyInForce{Revision: "rev-1"}, b.err
}

func (b *backend) AdminExplain(_ context.Context, q Question) (Answer, error) {
	b.last = "admin explain " + q.Target()
	return Answer{Allow: true, Reason: "allowed"}, b.err
}

func (b *backend) ReloadPolicy(context.Context) (PolicyReloaded, error) {
	return PolicyReloaded{"rev-1"}, b.err
}

func (b *backend) AuditEvents(_ context.Context, q AuditQuestion) (AuditPage, error) {
	b.last = fmt.Sprintf("%+v", q)
	return AuditPage{Next: "n"}, b.err
}

func (b *backend) TailAudit(context.Context, AuditQuestion, func(TailLine) error) error {
	return b.err
}

// gate lets everybody do everything.
type gate struct{ acts []Act }

func (g *gate) May(context.Context, string) error { return nil }
func (g *gate) Record(_ context.Context, a Act) error {
	g.acts = append(g.acts, a)
	return nil
}
func (g *gate) Unrecorded(Act, error) {}

func (b *backend) CreateKey(_ context.Context, k NewKey) (KeyCreated, error) {
	b.last = fmt.Sprintf("%+v", k)
	return KeyCreated{Key: Key{ID: "k"}, Text: "secret"}, b.err
}

func (b *backend) Keys(context.Context) ([]Key, error) { return []Key{{ID: "mine"}}, b.err }

func (b *backend) RevokeKey(_ context.Context, q ByID) (Key, error) {
	b.last = "revoke key " + q.ID
	return Key{ID: q.ID}, b.err
}

func (b *backend) AdminKeys(context.Context) ([]Key, error) { return []Key{{ID: "admin"}}, b.err }

func (b *backend) budgets(call string, q any) (BudgetList, error) {
	b.last = fmt.Sprintf("%s %+v", call, q)
	return BudgetList{Budgets: []Budget{{Grant: "g", Kind: "tokens", Limit: 9, Used: 3}}}, b.err
}

func (b *backend) Budgets(_ context.Context, q OwnBudgets) (BudgetList, error) {
	return b.budgets("show", q)
}

func (b *backend) AdminBudgets(_ context.Context, q BudgetQuestion) (BudgetList, error) {
	return b.budgets("admin show", q)
}

func (b *backend) ResetBudgets(_ context.Context, q BudgetReset) (BudgetList, error) {
	return b.budgets("admin reset", q)
}

var (
	_ UserBackend  = (*backend)(nil)
	_ AdminBackend = (*backend)(nil)
)

func clientOf(t *testing.T, h http.Handler) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c := NewClient(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", s.Listener.Addr().String())
	})
	t.Cleanup(c.Close)
	return c
}

func check[T any](t *testing.T, what string, want T) func(T, error) {
	return func(got T, err error) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}

func TestBothEndsSpeakTheSameDocuments(t *testing.T) {
	b := &backend{}
	user, operator, ctx := clientOf(t, UserHandler(b, b, &gate{})), clientOf(t, AdminHandler(b, &gate{})), t.Context()
	check(t, "whoami", Whoami{Principal: "corp/alice"})(user.Whoami(ctx))
	check(t, "resources", ResourceList{Resources: []Resource{{Name: "phi3"}}})(user.Resources(ctx))
	check(t, "status", Status{Relay: "r"})(user.Status(ctx))
	check(t, "explain", Answer{Allow: true, Reason: "allowed"})(user.Explain(ctx, Question{Resource: "phi3", Action: "chat", Model: "m"}))
	if b.last != "{Who:<nil> Resource:phi3 Action:chat Model:m Egress:false Media:[] Via:}" {
		t.Error(b.last)
	}
	check(t, "admin status", Status{Audit: "ok"})(operator.AdminStatus(ctx))
	check(t, "agents", []Agent{{ID: "agent-1"}})(operator.Agents(ctx))
	check(t, "token", JoinTokenCreated{Token: "t", Expires: time.Unix(1, 0).UTC()})(operator.CreateJoinToken(ctx, NewJoinToken{Name: "n", Share: true}))
	check(t, "reload", "rev-1")(operator.ReloadPolicy(ctx))
	check(t, "keys", []Key{{ID: "mine"}})(user.Keys(ctx))
	check(t, "admin keys", []Key{{ID: "admin"}})(operator.AdminKeys(ctx))
	check(t, "create key", KeyCreated{Key: Key{ID: "k"}, Text: "secret"})(user.CreateKey(ctx, NewKey{Name: "n", Resources: []string{"phi3"}, TTL: 60}))
	if b.last != "{Name:n Resources:[phi3] Actions:[] Models:[] TTL:60}" {
		t.Error(b.last)
	}
	for _, id := range []string{"x", "a b", "../../v1/whoami", "a/b?c#d", "%2e%2e", "ü"} {
		if err := errorOf(operator.RevokeAgent(ctx, id)); err != nil || b.last != "revoke "+id {
			t.Errorf("revoke %q: %q, %v", id, b.last, err)
		}
		if err := errorOf(operator.KillSession(ctx, id, "")); err != nil || b.last != "kill "+id {
			t.Errorf("kill %q: %q, %v", id, b.last, err)
		}
		check(t, "kill all", Ended{Sessions: 2, Streams: 5})(operator.KillSessions(ctx, KillQuestion{Principal: id, Reason: "left"}))
		if b.last != "kill all of "+id+" left" {
			t.Errorf("kill all of %q: %q", id, b.last)
		}
		if err := errorOf(operator.RevokePrincipal(ctx, id, "left")); err != nil || b.last != "revoke principal "+id+" left" {
			t.Errorf("revoke %q: %q, %v", id, b.last, err)
		}
		if err := operator.RestorePrincipal(ctx, id, ""); err != nil || b.last != "restore principal "+id+" " {
			t.Errorf("restore %q: %q, %v", id, b.last, err)
		}
		if k, err := user.RevokeKey(ctx, id); err != nil || k.ID != id || b.last != "revoke key "+id {
			t.Errorf("revoke key %q: %q, %v", id, b.last, err)
		}
		if err := operator.AdminRevokeKey(ctx, id); err != nil || b.last != "admin revoke key "+id {
			t.Errorf("revoke key %q: %q, %v", id, b.last, err)
		}
	}
}

// errorOf is the error of a call that also answers.
func errorOf(_ Ended, err error) error { return err }

func TestQuestionsAreWhatTheBackendSees(t *testing.T) {
	b := &backend{}
	user, operator, ctx := clientOf(t, UserHandler(b, b, &gate{})), clientOf(t, AdminHandler(b, &gate{})), t.Context()
	want := BudgetList{Budgets: []Budget{{Grant: "g", Kind: "tokens", Limit: 9, Used: 3}}}
	q, r := BudgetQuestion{Who: "corp/a b&x=1", Grant: "g", Resource: "phi3"}, BudgetReset{Who: "group:corp/x", Grant: "g"}
	for call, got := range map[string]func() (BudgetList, error){
		"show {Resource:phi3}":                                func() (BudgetList, error) { return user.Budgets(ctx, OwnBudgets{Resource: "phi3"}) },
		"admin show {Who:corp/a b&x=1 Grant:g Resource:phi3}": func() (BudgetList, error) { return user.AdminBudgets(ctx, q) },
		"admin show {Who:all Grant:g Resource:}":              func() (BudgetList, error) { return operator.AdminBudgets(ctx, BudgetQuestion{Who: "all", Grant: "g"}) },
		"admin reset {Who:group:corp/x Grant:g}":              func() (BudgetList, error) { return operator.ResetBudgets(ctx, r) },
	} {
		check(t, call, want)(got())
		if b.last != call {
			t.Errorf("the backend saw %q, want %q", b.last, call)
		}
	}
}

func TestErrorsArriveWithCodeStatusAndHint(t *testing.T) {
	want := &Error{Status: http.StatusConflict, Code: "resource_taken", Message: "taken", Hint: "use --share"}
	b := &backend{err: fmt.Errorf("wrapped: %w", want)}
	user, operator := clientOf(t, UserHandler(b, b, &gate{})), clientOf(t, AdminHandler(b, &gate{}))
	_, one := user.Whoami(t.Context())
	two := errorOf(operator.KillSession(t.Context(), "x", ""))
	for _, err := range []error{one, two} {
		var got *Error
		if !errors.As(err, &got) || *got != *want {
			t.Errorf("got %+v", err)
		}
	}
	b.err = errors.New("open /var/lib/iap-relay/state.db: disk I/O error")
	var got *Error
	if _, err := user.Whoami(t.Context()); !errors.As(err, &got) || got.Code != "internal" || got.Status != 500 || strings.Contains(got.Message, "/var/lib") {
		t.Errorf("an inner cause reached the caller: %+v", err)
	}
}

func TestRequestsAreReadStrictly(t *testing.T) {
	b := &backend{}
	s := httptest.NewServer(AdminHandler(b, &gate{}))
	t.Cleanup(s.Close)
	for _, body := range []string{"null x", `{"name":"a","nmae":"b"}`, `{"name":"a"}{"name":"b"}`, `{"name":1}`, `[]`, `{"name":"a"`, strings.Repeat(" ", 10<<20) + `{"name":"a"}`} {
		b.last = ""
		r, err := http.Post(s.URL+"/v1/admin/agents/tokens", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		var e Error
		decodeErr := json.NewDecoder(r.Body).Decode(&e)
		r.Body.Close()
		if r.StatusCode != http.StatusBadRequest || decodeErr != nil || e.Code != "bad_request" || b.last != "" {
			t.Errorf("%.30q: %s %+v, backend saw %q", body, r.Status, e, b.last)
		}
	}
}

func TestWhatNoRouteMatchesIsAnErrorOfTheAPI(t *testing.T) {
	for _, h := range []http.Handler{UserHandler(&backend{}, &backend{}, &gate{}), AdminHandler(&backend{}, &gate{})} {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		for _, target := range []string{"/", "/v1", "/v1/nothing", "/v1/admin/agents/x/revoke/", "/v1/admin/agents//revoke"} {
			r, err := c.Get(s.URL + target)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(r.Body)
			r.Body.Close()
			if r.StatusCode < 300 || r.StatusCode >= 400 && (!strings.Contains(string(body), `"code":`) || r.Header.Get("Content-Type") != "application/json") {
				t.Errorf("%s: %s %s", target, r.Status, body)
			}
		}
		r, err := c.Post(s.URL+"/v1/whoami", "application/json", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode < 400 {
			t.Errorf("POST whoami: %s", r.Status)
		}
	}
}

func TestAnswersAreNotCachedNorSniffed(t *testing.T) {
	s := httptest.NewServer(UserHandler(&backend{}, &backend{}, &gate{}))
	t.Cleanup(s.Close)
	for _, path := range []string{"/v1/whoami", "/nothing"} {
		r, err := http.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", path, r.Header)
		}
	}
}

func TestClientBoundsAndDoubtsWhatARelayAnswers(t *testing.T) {
	var answer http.HandlerFunc
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r) }))
	t.Cleanup(s.Close)
	address := s.Listener.Addr().String()
	for name, one := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example/", http.StatusFound)
		},
		"html":   func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>captive portal") },
		"no key": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"relay":"x","relay_key":"AAAA"}`) },
		"no name": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"relay_key":%q}`, strings.Repeat("A", 43)+"=")
		},
		"204":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"error": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadGateway) },
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"relay":"`, strings.Repeat("x", maxReplyBytes), `"}`)
		},
	} {
		answer = one
		if d, err := FetchDiscovery(t.Context(), s.Client(), address); err == nil {
			t.Errorf("%s: %.100v was believed", name, d)
		}
		if r, err := Join(t.Context(), s.Client(), address, JoinRequest{}); err == nil && (name == "redirect" || name == "html" || name == "204" || name == "error") {
			t.Errorf("%s: join: %.100v was believed", name, r)
		}
	}
	answer = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != DiscoveryPath {
			t.Errorf("asked for %s", r.URL.Path)
		}
		WriteJSON(w, 200, Discovery{Relay: "iap.example.com", RelayKey: make([]byte, 32), Issuers: []DiscoveryIssuer{{Name: "corp"}}})
	}
	d, err := FetchDiscovery(t.Context(), s.Client(), address)
	if err != nil || d.Relay != "iap.example.com" || len(d.Issuers) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	for _, bad := range []string{"", "a b", "x/../y", "x\n"} {
		if _, err := FetchDiscovery(t.Context(), s.Client(), bad); err == nil {
			t.Errorf("%q was asked", bad)
		}
	}
}

func TestErrorsOfTheConnectionNameTheCallAndNoInnerAddress(t *testing.T) {
	c := NewClient(func(context.Context) (net.Conn, error) { return nil, errors.New("session lost") })
	defer c.Close()
	_, err := c.Whoami(t.Context())
	if err == nil || !strings.Contains(err.Error(), "session lost") || strings.Contains(err.Error(), "http://relay") {
		t.Errorf("got %v", err)
	}
}
