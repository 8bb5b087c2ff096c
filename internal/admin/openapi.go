package admin

import (
	_ "embed"
	"io"
	"net/http"
)

// openapi describes the whole API. A test makes it from the tables and the types
// and fails when it is not what stands here.
//
//go:embed openapi.json
var openapi string

// OpenAPIPath is where both handlers serve the description.
const OpenAPIPath = "/v1/openapi.json"

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = io.WriteString(w, openapi) // the client may be gone
}

// OpenAPI returns the description as it is served.
func OpenAPI() []byte { return []byte(openapi) }
