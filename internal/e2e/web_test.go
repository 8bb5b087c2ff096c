package e2e

import (
	"io"
	"net/http"
)

// echoApp is a small web application: it sets a cookie and says what it was sent.
func echoApp() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // what is sent does not matter here
		_, _ = io.WriteString(w, "hello\n")
	})
	return mux
}
