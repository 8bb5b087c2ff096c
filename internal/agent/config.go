package agent

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"iap/internal/config"
)

// Config is the agent's configuration file, agent.yaml, which `iap-agent join`
// writes. Relative paths are relative to the file. Changes take effect at the
// next start.
type Config struct {
	// Relay is the relay's name as dialled, host[:port]. Required.
	Relay string `yaml:"relay"`
	// Relays are the addresses of several relays that share their state, each
	// host[:port]: the agent keeps sessions to all of them, and holds each to the
	// name in relay and to its one key. Default: the addresses that the name has.
	Relays []string `yaml:"relays"`
	// AgentID is what the relay calls this agent. Written by join.
	AgentID string `yaml:"agent_id"`
	// RelayKey is the relay's public key, base64, pinned at join. Required.
	RelayKey string `yaml:"relay_key"`
	// KeyFile is the agent's private key. Default agent.key.
	KeyFile string `yaml:"key_file"`
	// Key says when the key is changed.
	Key KeyConfig `yaml:"key"`
	// CAFile holds the certificates to trust for the relay's TLS, PEM. Default:
	// the system's.
	CAFile string `yaml:"ca_file"`
	// Resources is the agent's own list: nothing else is ever dialled.
	Resources []ResourceConfig `yaml:"resources"`

	file string
}

// KeyConfig is about the agent's private key.
type KeyConfig struct {
	// RotateAfter is how old the key may become before the agent makes a new one, such as 90d; the moment lies in the
	// last tenth of it, elsewhere for each key. At least 1h. Default: never by itself.
	RotateAfter config.Duration `yaml:"rotate_after"`
}

// leastRotateAfter is far beyond the overlap in which the relay takes both keys.
const leastRotateAfter = time.Hour

// maxResources is what one join token can name.
const maxResources = 64

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
	if len(c.Relays) > maxRelays {
		return fmt.Errorf("relays: at most %d", maxRelays)
	}
	for i, address := range c.Relays {
		if host, _ := splitName(address); host == "" {
			return fmt.Errorf("relays[%d]: %q is no address; write relay-a.example or relay-a.example:443", i, address)
		}
	}
	if _, err := c.relayKey(); err != nil {
		return err
	}
	if after := time.Duration(c.Key.RotateAfter); after != 0 && after < leastRotateAfter {
		return fmt.Errorf("key: rotate_after: %s is shorter than %s", after, leastRotateAfter)
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
