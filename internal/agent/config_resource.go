package agent

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"iap/internal/config"
	"iap/internal/modelapi"
	"iap/policy"
)

// ResourceConfig is one upstream.
type ResourceConfig struct {
	// Name and Kind are those of the join token: model, http or tcp.
	Name string `yaml:"name"`
	Kind string `yaml:"kind"`
	// Upstream is where it listens: http://127.0.0.1:11434, or for tcp
	// 127.0.0.1:5432. Required.
	Upstream string `yaml:"upstream"`
	// Server is the kind of model server: ollama, llama.cpp, vllm, sglang, tgi,
	// llama-swap or openai. Default: found out by asking it.
	Server string `yaml:"server"`
	// Models are the only models to serve, * and ? as wildcards. Default: all.
	Models []string `yaml:"models"`
	// Aliases are other names for models, name: model. Kind model only.
	Aliases map[string]string `yaml:"aliases"`
	// Actions are the only actions to serve. Default: all that the relay grants.
	Actions []string `yaml:"actions"`
	// Capacity is how many generations run at once; the rest wait in a fair
	// queue. Set it to what the server computes at the same time (Ollama's
	// OLLAMA_NUM_PARALLEL, llama.cpp's --parallel). Kind model only. Default 0:
	// all run at once, and the server's own queue decides, first come first
	// served.
	Capacity int `yaml:"capacity"`
	// Queue bounds who waits. Only beside capacity.
	Queue QueueConfig `yaml:"queue"`
	// APIKeyFile holds a key that the upstream wants as a bearer token;
	// APIKeyEnv names the environment variable that does. One of them at most.
	APIKeyFile string `yaml:"api_key_file"`
	APIKeyEnv  string `yaml:"api_key_env"`
	// Opaque lets an http or tcp resource be a model server, whose requests then
	// nobody understands or limits.
	Opaque bool `yaml:"opaque"`

	apiKey string
	url    *url.URL // of model and http
}

// QueueConfig is how many may wait for a generation, and how long.
type QueueConfig struct {
	// Max is how many requests wait in all, PerPrincipal how many of one
	// principal. Default 64 and 16, at most 1024.
	Max          int `yaml:"max"`
	PerPrincipal int `yaml:"per_principal"`
	// MaxWait is how long a request waits before it is refused, 1s to 1h.
	// Default 2m.
	MaxWait config.Duration `yaml:"max_wait"`
}

const (
	maxKeyFile   = 8 << 10 // an upstream's API key
	maxCapacity  = 10_000
	maxAliases   = 64
	maxAliasName = 128

	defaultQueueMax  = 64
	defaultQueueEach = 16
	defaultQueueWait = 2 * time.Minute
	maxQueueMax      = 1024
	minQueueWait     = time.Second
	maxQueueWait     = time.Hour
)

func (r *ResourceConfig) validate(file string) error {
	if r.Name == "" {
		return errors.New("name: missing")
	}
	switch r.Kind {
	case modelapi.KindTCP:
		if host, port, err := net.SplitHostPort(r.Upstream); err != nil || host == "" || port == "" {
			return fmt.Errorf("upstream: %q is no address: write 127.0.0.1:5432", r.Upstream)
		}
	case modelapi.KindModel, modelapi.KindHTTP:
		u, err := url.Parse(r.Upstream)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("upstream: %q is no base URL: write http://127.0.0.1:11434", r.Upstream)
		}
		u.Path = strings.TrimSuffix(u.Path, "/")
		r.url = u
	default:
		return fmt.Errorf("kind: %q is none of model, http, tcp", r.Kind)
	}
	if r.Kind != modelapi.KindModel && (r.Server != "" || len(r.Models) > 0 || len(r.Aliases) > 0 || r.Capacity != 0) {
		return errors.New("server, models, aliases and capacity belong to kind model")
	}
	if r.Server != "" && !slices.Contains(modelapi.Servers(), r.Server) {
		return fmt.Errorf("server: %q is none of %s", r.Server, strings.Join(modelapi.Servers(), ", "))
	}
	for _, action := range r.Actions {
		if !policy.IsAction(action) {
			return fmt.Errorf("actions: %q is none of %s", action, strings.Join(policy.Actions(), ", "))
		}
	}
	if err := r.validateAliases(); err != nil {
		return err
	}
	if err := r.validateQueue(); err != nil {
		return err
	}
	return r.readKey(file)
}

// validateAliases keeps every name clear: an alias leads to a model, never to
// itself or to another alias.
func (r *ResourceConfig) validateAliases() error {
	if len(r.Aliases) > maxAliases {
		return fmt.Errorf("aliases: at most %d", maxAliases)
	}
	folded := map[string]string{}
	for alias := range r.Aliases {
		if !validName(alias, maxAliasName) {
			return fmt.Errorf("aliases: %q is no name for a model", alias)
		}
		if other, twice := folded[foldName(alias)]; twice {
			return fmt.Errorf("aliases: %q and %q are one name to a model server", min(alias, other), max(alias, other))
		}
		folded[foldName(alias)] = alias
	}
	for alias, model := range r.Aliases {
		switch other, chained := folded[foldName(model)]; {
		case !validName(model, modelapi.MaxName):
			return fmt.Errorf("aliases: %q leads to %q, which is no name of a model", alias, model)
		case chained && other == alias:
			return fmt.Errorf("aliases: %q leads to itself", alias)
		case chained:
			return fmt.Errorf("aliases: %q leads to %q, which is an alias itself; name the model", alias, model)
		case !r.servesModel(model):
			return fmt.Errorf("aliases: %q leads to %q, which models does not list", alias, model)
		}
	}
	return nil
}

// foldName brings spellings together that some server takes for one.
func foldName(name string) string {
	return strings.TrimSuffix(strings.ToLower(name), ":latest")
}

func validName(name string, most int) bool {
	return name != "" && len(name) <= most && strings.TrimSpace(name) == name && !modelapi.HasControl(name)
}

func (r *ResourceConfig) validateQueue() error {
	if r.Capacity < 0 || r.Capacity > maxCapacity {
		return fmt.Errorf("capacity: %d is not between 0 (no bound) and %d", r.Capacity, maxCapacity)
	}
	q := &r.Queue
	if r.Capacity == 0 {
		if *q != (QueueConfig{}) {
			return errors.New("queue: nobody waits without capacity; say how many generations run at once")
		}
		return nil
	}
	if q.Max == 0 {
		q.Max = defaultQueueMax
	}
	if q.PerPrincipal == 0 {
		q.PerPrincipal = min(defaultQueueEach, max(q.Max, 1))
	}
	if q.MaxWait == 0 {
		q.MaxWait = config.Duration(defaultQueueWait)
	}
	switch wait := time.Duration(q.MaxWait); {
	case q.Max < 1 || q.Max > maxQueueMax:
		return fmt.Errorf("queue: max: %d is not between 1 and %d", q.Max, maxQueueMax)
	case q.PerPrincipal < 1 || q.PerPrincipal > q.Max:
		return fmt.Errorf("queue: per_principal: %d is not between 1 and max, %d", q.PerPrincipal, q.Max)
	case wait < minQueueWait || wait > maxQueueWait:
		return fmt.Errorf("queue: max_wait: %s is not between %s and %s", wait, minQueueWait, maxQueueWait)
	}
	return nil
}

func (r *ResourceConfig) readKey(file string) error {
	field, source, text := "api_key_file", r.APIKeyFile, ""
	switch {
	case r.APIKeyFile != "" && r.APIKeyEnv != "":
		return errors.New("api_key_file and api_key_env: only one of them")
	case r.APIKeyFile != "":
		data, err := os.ReadFile(config.Resolve(file, r.APIKeyFile))
		if err != nil {
			return fmt.Errorf("api_key_file: %w", err)
		}
		text = string(data)
	case r.APIKeyEnv != "":
		field, source, text = "api_key_env", r.APIKeyEnv, os.Getenv(r.APIKeyEnv)
	default:
		return nil
	}
	r.apiKey = strings.TrimSpace(text)
	if r.apiKey == "" || len(r.apiKey) > maxKeyFile || strings.ContainsFunc(r.apiKey, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return fmt.Errorf("%s: %s holds no key", field, source)
	}
	return nil
}

// SetUpstream replaces the upstream of a validated resource, for a caller that
// starts the upstream itself.
func (r *ResourceConfig) SetUpstream(base string) error {
	r.Upstream = base
	return r.validate("")
}

// servesModel matches a model's name, with or without its tag, against the
// agent's own list.
func (r *ResourceConfig) servesModel(model string) bool {
	if len(r.Models) == 0 || model == "" {
		return true
	}
	name := strings.ToLower(model)
	bare := strings.TrimSuffix(name, ":latest")
	return slices.ContainsFunc(r.Models, func(pattern string) bool {
		pattern = strings.ToLower(strings.ReplaceAll(pattern, "[", `\[`))
		return globMatch(pattern, name) || globMatch(pattern, bare)
	})
}

// globMatch matches * and ? over the whole name, slashes included: namespaces
// of models are no folders.
func globMatch(pattern, name string) bool {
	flat := strings.NewReplacer("/", "\x00")
	ok, err := path.Match(flat.Replace(pattern), flat.Replace(name))
	return err == nil && ok
}
