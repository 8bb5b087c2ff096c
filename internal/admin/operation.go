package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
)

// operation is how a call of the backend B reads what it is asked and answers it.
type operation[B any] struct {
	question reflect.Type // nil: none
	answer   reflect.Type
	streams  bool // a line of JSON after another, each of them an answer
	// read takes the question out of the request: path, query of a GET, body of a
	// POST. The error is for the caller.
	read func(w http.ResponseWriter, r *http.Request) (any, error)
	// perform answers it; what streams writes to w itself.
	perform func(ctx context.Context, b B, q any, w http.ResponseWriter) (any, error)
}

// answers is a call that takes no question.
func answers[B, T any](f func(B, context.Context) (T, error)) operation[B] {
	return operation[B]{
		answer: reflect.TypeFor[T](),
		read:   func(w http.ResponseWriter, r *http.Request) (any, error) { return readQuestion[struct{}](w, r) },
		perform: func(ctx context.Context, b B, _ any, _ http.ResponseWriter) (any, error) {
			return f(b, ctx)
		},
	}
}

// asks is a call that takes one.
func asks[B, Q, T any](f func(B, context.Context, Q) (T, error)) operation[B] {
	return operation[B]{
		question: reflect.TypeFor[Q](), answer: reflect.TypeFor[T](),
		read: func(w http.ResponseWriter, r *http.Request) (any, error) { return readQuestion[Q](w, r) },
		perform: func(ctx context.Context, b B, q any, _ http.ResponseWriter) (any, error) {
			return f(b, ctx, q.(Q))
		},
	}
}

// follows is a call that answers as long as the caller listens.
func follows[B, Q any](f func(B, context.Context, Q, func(TailLine) error) error) operation[B] {
	return operation[B]{
		question: reflect.TypeFor[Q](), answer: reflect.TypeFor[TailLine](), streams: true,
		read: func(w http.ResponseWriter, r *http.Request) (any, error) { return readQuestion[Q](w, r) },
		perform: func(ctx context.Context, b B, q any, w http.ResponseWriter) (any, error) {
			return nil, f(b, ctx, q.(Q), func(line TailLine) error { return writeLine(w, line) })
		},
	}
}

// readQuestion takes a Q out of the request, strictly.
func readQuestion[Q any](w http.ResponseWriter, r *http.Request) (Q, error) {
	var q Q
	var err error
	if r.Method == http.MethodGet {
		err = readQuery(r.URL.RawQuery, &q)
	} else {
		err = readBody(w, r, &q)
	}
	if err != nil {
		return q, &Error{Status: http.StatusBadRequest, Code: "bad_request", Message: "the request is not what this call takes: " + err.Error()}
	}
	v := reflect.ValueOf(&q).Elem()
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("path"); name != "" {
			v.Field(i).SetString(r.PathValue(name))
		}
	}
	return q, nil
}

// readBody reads one JSON document; no body at all is a question with nothing in
// it.
func readBody(w http.ResponseWriter, r *http.Request, q any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	dec.DisallowUnknownFields()
	if err := dec.Decode(q); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if _, more := dec.Token(); !errors.Is(more, io.EOF) {
		return errors.New("data after the document")
	}
	return nil
}
