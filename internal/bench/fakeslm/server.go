package fakeslm

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"

	"iap/internal/bench/clock"
)

// Model is the name of the one model.
const Model = "fake-slm"

const (
	maxBody       = 16 << 20  // of a chat request
	maxTokens     = 1 << 20   // of an answer
	bulkBlock     = 128 << 10 // of /bytes and /sink
	embeddingDims = 64
)

// Server is the model server's state. New makes one.
type Server struct {
	pace     atomic.Pointer[Pace]
	requests atomic.Int64
	streams  atomic.Int64 // streamed answers in progress
	sunk     atomic.Int64 // bytes that /sink has received
}

// New returns a server that keeps the pace until /pace changes it.
func New(p Pace) *Server {
	s := new(Server)
	s.pace.Store(&p)
	return s
}

// Handler serves the routes that the package comment lists.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", s.openAIChat)
	mux.HandleFunc("POST /v1/embeddings", s.embeddings)
	mux.HandleFunc("GET /v1/models", s.models)
	mux.HandleFunc("POST /api/chat", s.ollamaChat)
	mux.HandleFunc("GET /bytes", s.bytesDown)
	mux.HandleFunc("POST /sink", s.bytesUp)
	mux.HandleFunc("GET /stats", s.stats)
	mux.HandleFunc("POST /pace", s.setPace)
	return mux
}

func (s *Server) embeddings(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	vector := make([]float64, embeddingDims)
	for i := range vector {
		vector[i] = float64(i) / embeddingDims
	}
	writeJSON(w, map[string]any{
		"object": "list", "model": Model,
		"data":  []any{map[string]any{"object": "embedding", "index": 0, "embedding": vector}},
		"usage": map[string]int{"prompt_tokens": promptTokens, "total_tokens": promptTokens},
	})
}

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	s.requests.Add(1)
	writeJSON(w, map[string]any{
		"object": "list",
		"data":   []any{map[string]any{"id": Model, "object": "model", "created": 0, "owned_by": "fakeslm"}},
	})
}

// bytesDown answers n bytes of a fixed pattern.
func (s *Server) bytesDown(w http.ResponseWriter, r *http.Request) {
	left, err := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
	if err != nil || left < 0 {
		http.Error(w, "n: want a number of bytes", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(left, 10))
	block := make([]byte, bulkBlock)
	for i := range block {
		block[i] = byte(i * 7)
	}
	for left > 0 {
		n, err := w.Write(block[:min(left, bulkBlock)])
		if err != nil {
			return
		}
		left -= int64(n)
	}
}

// bytesUp counts and drops the body. The running count is in /stats, since the
// load generator wants to know what has arrived, not what has left it.
func (s *Server) bytesUp(w http.ResponseWriter, r *http.Request) {
	block := make([]byte, bulkBlock)
	var total int64
	for {
		n, err := r.Body.Read(block)
		total += int64(n)
		s.sunk.Add(int64(n))
		if err == io.EOF {
			break
		}
		if err != nil {
			return
		}
	}
	writeJSON(w, map[string]int64{"received": total})
}

func (s *Server) stats(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]int64{
		"requests": s.requests.Load(), "streams": s.streams.Load(), "sunk_bytes": s.sunk.Load(), "mono_ns": clock.Now(),
	})
}

func writeJSON(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // a reader that left is the only failure
}
