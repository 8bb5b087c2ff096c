package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
)

// maxRequestBytes bounds a request of the API: the largest is a join token
// with many resources.
const maxRequestBytes = 64 << 10

// UserBackend is what the relay does for one principal.
type UserBackend interface {
	Whoami(ctx context.Context) (Whoami, error)
	Resources(ctx context.Context) (ResourceList, error)
	Status(ctx context.Context) (Status, error)
	Explain(ctx context.Context, q Question) (Answer, error)
	CreateKey(ctx context.Context, k NewKey) (KeyCreated, error)
	Keys(ctx context.Context) ([]Key, error)
	RevokeKey(ctx context.Context, q ByID) (Key, error)
	Budgets(ctx context.Context, q OwnBudgets) (BudgetList, error)
	Usage(ctx context.Context, q UsageQuestion) (UsageReport, error)
}

// ownRoute is one call by which a principal asks about itself.
type ownRoute struct {
	pattern string // method and path
	summary string
	operation[UserBackend]
}

// ownRoutes is the API of one principal.
func ownRoutes() []ownRoute {
	return []ownRoute{
		{"GET /v1/whoami", "Who the relay takes the caller for", answers(UserBackend.Whoami)},
		{"GET /v1/resources", "What the caller may reach", answers(UserBackend.Resources)},
		{"GET /v1/status", "The caller's sessions", answers(UserBackend.Status)},
		{"POST /v1/policy/explain", "What the policy says of the caller", asks(UserBackend.Explain)},
		{"POST /v1/budgets", "How the caller's limits stand", asks(UserBackend.Budgets)},
		{"GET /v1/usage", "What the caller has used, added up", asks(UserBackend.Usage)},
		{"POST /v1/keys", "Make a key for a program", asks(UserBackend.CreateKey)},
		{"GET /v1/keys", "The caller's keys for programs", answers(UserBackend.Keys)},
		{"POST /v1/keys/{id}/revoke", "End a key of the caller's, by its id or name", asks(UserBackend.RevokeKey)},
	}
}

// UserHandler serves the API of one principal, and the admin API as far as the
// gate lets it.
func UserHandler(b UserBackend, a AdminBackend, g Gate) http.Handler {
	mux := http.NewServeMux()
	mountAdmin(mux, a, g)
	for _, r := range ownRoutes() {
		mux.HandleFunc(r.pattern, func(w http.ResponseWriter, q *http.Request) {
			question, err := r.read(w, q)
			if err != nil {
				WriteError(w, err)
				return
			}
			v, err := r.perform(q.Context(), b, question, w)
			write(w, v, err)
		})
	}
	return withErrors(mux)
}

// JoinHandler serves JoinPath.
func JoinHandler(join func(ctx context.Context, q JoinRequest) (JoinReply, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, err := readQuestion[JoinRequest](w, r)
		if err == nil && q.TokenID == "" {
			err = &Error{Status: http.StatusBadRequest, Code: "bad_request", Message: "the request names no join token"}
		}
		if err != nil {
			WriteError(w, err)
			return
		}
		reply, err := join(r.Context(), q)
		write(w, reply, err)
	})
}

// withErrors gives what no route matches the API's own error shape.
func withErrors(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern == "" {
			WriteError(w, &Error{Status: http.StatusNotFound, Code: "not_found", Message: "the relay's API has no such call"})
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func write(w http.ResponseWriter, v any, err error) {
	if err != nil {
		WriteError(w, err)
		return
	}
	WriteJSON(w, http.StatusOK, v)
}

// WriteError answers with err if it is an *Error, and with a plain "internal"
// otherwise: causes stay in the relay's log.
func WriteError(w http.ResponseWriter, err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Status: http.StatusInternalServerError, Code: "internal", Message: "the relay could not do that", Hint: "its log says why"}
	}
	status := e.Status
	if status < 400 {
		status = http.StatusInternalServerError
	}
	WriteJSON(w, status, e)
}

// WriteJSON answers with v.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		http.Error(w, `{"code":"internal","message":"the answer cannot be encoded"}`, http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // the client may be gone: nothing to do about it
}
