package agent

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"iap/internal/config"
	"iap/internal/modelapi"
)

// Config is the agent's configuration file, agent.yaml, which `iap-agent join`
// writes. Relative paths are relative to the file. Changes take effect at the
// next start.
type Config struct {
	// Relay is the relay's name as dialled, host[:port]. Required.
	Relay string `yaml:"relay"`
	// AgentID is what the relay calls this agent. Written by join.
	AgentID string `yaml:"agent_id"`
	// RelayKey is the relay's public key, base64, pinned at join. Required.
	RelayKey string `yaml:"relay_key"`
	// KeyFile is the agent's private key. Default agent.key.
	KeyFile string `yaml:"key_file"`
	// CAFile holds the certificates to trust for the relay's TLS, PEM. Default:
	// the system's.
	CAFile string `yaml:"ca_file"`
	// Resources is the agent's own list: nothing else is ever dialled.
	Resources []ResourceConfig `yaml:"resources"`

	file string
}

// ResourceConfig is one upstream.
type ResourceConfig struct {
	// Name and Kind are those of the join token: model, http or tcp.
	Name string `yaml:"name"`
	Kind string `yaml:"kind"`
	// Upstream is where it listens: http://127.0.0.1:11434, or for tcp
	// 127.0.0.1:5432. Required.
	Upstream string `yaml:"upstream"`
	// Server is the kind of model server: ollama, llama.cpp or openai. Default:
	// found out by asking it.
	Server string `yaml:"server"`
	// Models are the only models to serve, * and ? as wildcards. Default: all.
	Models []string `yaml:"models"`
	// Actions are the only actions to serve. Default: all that the relay grants.
	Actions []string `yaml:"actions"`
	// APIKeyFile holds a key that the upstream wants as a bearer token.
	APIKeyFile string `yaml:"api_key_file"`
	// Opaque lets an http or tcp resource be a model server, whose requests then
	// nobody understands or limits.
	Opaque bool `yaml:"opaque"`

	apiKey string
	url    *url.URL // of model and http
}

// maxResources is what one join token can name.
const maxResources = 64

// maxKeyFile bounds an upstream's API key.
const maxKeyFile = 8 << 10

// LoadConfig reads and validates agent.yaml.
func LoadConfig(file string) (*Config, error) {
	c := &Config{file: file, KeyFile: "agent.key"}
	if err := config.Load(file, c); err != nil {
		return nil, err
	}
	c.KeyFile = config.Resolve(file, c.KeyFile)
	c.CAFile = config.Resolve(file, c.CAFile)
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

func (c *Config) validate() error {
	switch {
	case c.Relay == "":
		return errors.New("relay: missing; run iap-agent join TOKEN")
	case c.AgentID == "":
		return errors.New("agent_id: missing; run iap-agent join TOKEN")
	case len(c.Resources) == 0 || len(c.Resources) > maxResources:
		return fmt.Errorf("resources: between 1 and %d are needed", maxResources)
	}
	if _, err := c.relayKey(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := range c.Resources {
		r := &c.Resources[i]
		if seen[r.Name] {
			return fmt.Errorf("resources[%d]: name: %q stands there twice", i, r.Name)
		}
		seen[r.Name] = true
		if err := r.validate(c.file); err != nil {
			return fmt.Errorf("resources[%d]: %w", i, err)
		}
	}
	return nil
}

func (c *Config) relayKey() (ed25519.PublicKey, error) {
	key, err := base64.StdEncoding.DecodeString(c.RelayKey)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, errors.New("relay_key: not the key that join wrote; run iap-agent join TOKEN again")
	}
	return key, nil
}

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
	if r.Kind != modelapi.KindModel && (r.Server != "" || len(r.Models) > 0) {
		return errors.New("server and models belong to kind model")
	}
	if known := []string{"", "ollama", "llama.cpp", "openai"}; !slices.Contains(known, r.Server) {
		return fmt.Errorf("server: %q is none of ollama, llama.cpp, openai", r.Server)
	}
	return r.readKey(file)
}

func (r *ResourceConfig) readKey(file string) error {
	if r.APIKeyFile == "" {
		return nil
	}
	data, err := os.ReadFile(config.Resolve(file, r.APIKeyFile))
	if err != nil {
		return fmt.Errorf("api_key_file: %w", err)
	}
	r.apiKey = strings.TrimSpace(string(data))
	if r.apiKey == "" || len(r.apiKey) > maxKeyFile || strings.ContainsFunc(r.apiKey, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return fmt.Errorf("api_key_file: %s holds no key", r.APIKeyFile)
	}
	return nil
}

// SetUpstream replaces the upstream of a validated resource, for a caller that
// starts the upstream itself.
func (r *ResourceConfig) SetUpstream(base string) error {
	r.Upstream = base
	return r.validate("")
}
