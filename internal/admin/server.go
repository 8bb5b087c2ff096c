package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
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
	RevokeKey(ctx context.Context, key string) (Key, error)
	Budgets(ctx context.Context, q OwnBudgets) (BudgetList, error)
	Usage(ctx context.Context, q UsageQuestion) (UsageReport, error)
}

// UserHandler serves the API of one principal, and the admin API as far as the
// gate lets it.
func UserHandler(b UserBackend, a AdminBackend, g Gate) http.Handler {
	mux := http.NewServeMux()
	mountAdmin(mux, a, g)
	mux.HandleFunc("GET /v1/whoami", answer(b.Whoami))
	mux.HandleFunc("GET /v1/resources", answer(b.Resources))
	mux.HandleFunc("GET /v1/status", answer(b.Status))
	mux.HandleFunc("POST /v1/policy/explain", answerBody(b.Explain))
	mux.HandleFunc("POST /v1/budgets", answerBody(b.Budgets))
	mux.HandleFunc("GET /v1/usage", answerQuery(b.Usage))
	mux.HandleFunc("POST /v1/keys", answerBody(b.CreateKey))
	mux.HandleFunc("GET /v1/keys", answer(b.Keys))
	mux.HandleFunc("POST /v1/keys/{id}/revoke", func(w http.ResponseWriter, r *http.Request) {
		key, err := b.RevokeKey(r.Context(), r.PathValue("id"))
		write(w, key, err)
	})
	return withErrors(mux)
}

// JoinHandler serves JoinPath.
func JoinHandler(join func(ctx context.Context, q JoinRequest) (JoinReply, error)) http.Handler {
	return answerBody(join)
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

func answer[T any](f func(context.Context) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r.Context())
		write(w, v, err)
	}
}

func answerBody[Q, T any](f func(context.Context, Q) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequestBytes))
		dec.DisallowUnknownFields()
		err := dec.Decode(&q)
		if err == nil {
			if _, more := dec.Token(); !errors.Is(more, io.EOF) {
				err = errors.New("data after the document")
			}
		}
		if err != nil {
			WriteError(w, &Error{Status: http.StatusBadRequest, Code: "bad_request", Message: "the request is not the JSON this call takes: " + err.Error()})
			return
		}
		v, err := f(r.Context(), q)
		write(w, v, err)
	}
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
