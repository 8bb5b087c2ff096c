package dev

import (
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultModelName       = "demo"
	defaultTokensPerSecond = 30
	defaultMaxTokens       = 256
	// However many tokens a request asks for, the generation ends here: an hour at the default rate.
	maxTokensCeiling = 100_000
	maxModelBody     = 32 << 20
)

// ModelOptions configure the demo model. The zero value is a model named demo that writes 30 tokens a second.
type ModelOptions struct {
	Name string // default demo
	// TokensPerSecond is the pace of each generation, 30 by default. Above a million there is no pacing.
	TokensPerSecond float64
	// Sentences ends an answer by itself after that many; 0 means three to five. A request's ignore_eos lifts it.
	Sentences int
	Logger    *slog.Logger
}

// DemoModel is a language model server. It serves any number of generations at once, each at its own steady pace.
type DemoModel struct {
	name      string
	pace      time.Duration // between two tokens; 0: none
	sentences int
	log       *slog.Logger
	mux       *http.ServeMux
	started   time.Time
	learn     func() *statistics // once, at the first generation

	active    atomic.Int64
	generated atomic.Int64
}

// Model returns the demo model. It learns at the first request and owns no goroutine.
func Model(o ModelOptions) *DemoModel {
	setDefault(&o.Name, defaultModelName)
	if o.TokensPerSecond <= 0 {
		o.TokensPerSecond = defaultTokensPerSecond
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m := &DemoModel{
		name: o.Name, sentences: o.Sentences, log: o.Logger, started: time.Now(),
		learn: sync.OnceValue(func() *statistics { return learn(corpus) }),
	}
	if o.TokensPerSecond <= 1e6 {
		m.pace = time.Duration(float64(time.Second) / o.TokensPerSecond)
	}
	m.mux = http.NewServeMux()
	m.routeOpenAI()
	m.mux.HandleFunc("POST /v1/responses", m.respondOpenAI)
	m.mux.HandleFunc("POST /v1/messages", m.messageAnthropic)
	m.routeOllama()
	return m
}

// ServeHTTP serves all protocols.
func (m *DemoModel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxModelBody)
	m.mux.ServeHTTP(w, r)
}

// Active is how many generations are running now.
func (m *DemoModel) Active() int { return int(m.active.Load()) }

// Generated is how many tokens were generated since the start, those of broken-off answers included.
func (m *DemoModel) Generated() int64 { return m.generated.Load() }

// tagged is the name as Ollama writes it.
func (m *DemoModel) tagged() string {
	if strings.Contains(m.name, ":") {
		return m.name
	}
	return m.name + ":latest"
}

// knows tells whether a request means this model; Ollama's own spellings of a name are one.
func (m *DemoModel) knows(name string) bool {
	name = strings.TrimPrefix(name, "library/")
	return name == m.name || name == m.tagged()
}

// newRandom makes the source of one generation: the same for the same seed and prompt, or a fresh one.
func newRandom(seed *int64, prompt []string) *rand.Rand {
	if seed == nil {
		return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	return rand.New(rand.NewPCG(uint64(*seed), hashWords(prompt)))
}
