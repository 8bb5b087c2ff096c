package profile

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"iap/internal/config"
)

// Bindings as they are remembered, weakest first. They are the relay's configuration and never negotiated.
const (
	BindingNonce    = "nonce"
	BindingExporter = "exporter"
)

// maxResources bounds the remembered list; completion needs no more.
const maxResources = 1000

// ErrBindingWeaker: the relay offers a weaker channel binding than it had before.
var ErrBindingWeaker = errors.New("the relay's channel binding became weaker")

// ErrRelayKeyChanged: the relay answers with a different key than before.
var ErrRelayKeyChanged = errors.New("the relay's key changed")

// State is what iapctl remembers of one profile; state.json holds it.
type State struct {
	Binding   string         `json:"binding,omitempty" yaml:"binding,omitempty"`     // strongest channel binding seen
	RelayKey  string         `json:"relay_key,omitempty" yaml:"relay_key,omitempty"` // base64 of the relay's Ed25519 public key
	RelayPin  RelayPin       `json:"relay_pin,omitzero" yaml:"relay_pin,omitempty"`  // what leads on from it
	Relays    []string       `json:"relays,omitempty" yaml:"relays,omitempty"`       // addresses of the relays behind the name, as told at the last login
	Ports     map[string]int `json:"ports,omitempty" yaml:"ports,omitempty"`         // resource → local port
	Resources []Resource     `json:"resources,omitempty" yaml:"resources,omitempty"` // last list seen, for completion
	Login     *Login         `json:"login,omitempty" yaml:"login,omitempty"`         // last login; nil after logout
}

// Resource is one name of the last list seen.
type Resource struct {
	Name string `json:"name" yaml:"name"`
	Kind string `json:"kind" yaml:"kind"`
}

// Login tells one login from the next, so that a running connect notices a new one, and remembers what a token cannot say
// later: how to renew it and how to revoke it. It holds no secret.
type Login struct {
	ID           string    `json:"id" yaml:"id"`                                           // random, new at each login
	At           time.Time `json:"at" yaml:"at"`                                           // when
	IssuerName   string    `json:"issuer_name,omitempty" yaml:"issuer_name,omitempty"`     // alias at the relay
	IssuerURL    string    `json:"issuer_url,omitempty" yaml:"issuer_url,omitempty"`       // the provider
	ClientID     string    `json:"client_id,omitempty" yaml:"client_id,omitempty"`         //
	ClientSecret string    `json:"client_secret,omitempty" yaml:"client_secret,omitempty"` // of a public client: the relay publishes it
	Scopes       []string  `json:"scopes,omitempty" yaml:"scopes,omitempty"`               //
	Pick         string    `json:"pick,omitempty" yaml:"pick,omitempty"`                   // id_token or access_token
	Audience     string    `json:"audience,omitempty" yaml:"audience,omitempty"`           // asked for at the provider
	Principal    string    `json:"principal,omitempty" yaml:"principal,omitempty"`         // issuer alias/subject as the relay verified it
	Name         string    `json:"name,omitempty" yaml:"name,omitempty"`                   // for display only
}

// State reads what is remembered; nothing remembered is an empty State.
func (p *Profile) State() (State, error) {
	var s State
	file := p.dirs.stateFile(p.Name)
	data, err := readFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if err := config.Decode(file, data, &s); err != nil {
		return State{}, err
	}
	return s, nil
}

// Update changes what is remembered: f sees the latest state and may change it; an error of f leaves the file as it was.
func (p *Profile) Update(ctx context.Context, f func(*State) error) error {
	return p.withLock(ctx, func() error {
		s, err := p.State()
		if err != nil {
			return err
		}
		if err := f(&s); err != nil {
			return err
		}
		if len(s.Resources) > maxResources {
			s.Resources = s.Resources[:maxResources]
		}
		data, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			return fmt.Errorf("encode state of profile %q: %w", p.Name, err)
		}
		return writeFile(p.dirs.stateFile(p.Name), append(data, '\n'))
	})
}

// CheckRelay compares what a relay shows now with what is remembered: the key must be the same, or one that the chain of statements
// leads to, and the binding not weaker. A weaker binding is what someone who ends TLS before the relay would offer.
func (s State) CheckRelay(key []byte, chain [][]byte, binding string) error {
	if s.RelayKey != "" {
		if _, err := s.followKey(key, chain); err != nil {
			return err
		}
	}
	if s.Binding == BindingExporter && binding != BindingExporter {
		return ErrBindingWeaker
	}
	return nil
}

// Remember keeps a relay's first key, and its binding, after CheckRelay has passed. A later key is LearnRelayKeys' to keep.
func (p *Profile) Remember(ctx context.Context, key []byte, chain [][]byte, binding string) error {
	return p.Update(ctx, func(s *State) error {
		if err := s.CheckRelay(key, chain, binding); err != nil {
			return err
		}
		if s.RelayKey == "" {
			s.RelayKey = base64.StdEncoding.EncodeToString(key)
		}
		if s.Binding != BindingExporter {
			s.Binding = binding
		}
		return nil
	})
}

// RememberPort keeps the local port of a resource.
func (p *Profile) RememberPort(ctx context.Context, resource string, port int) error {
	return p.Update(ctx, func(s *State) error {
		if s.Ports == nil {
			s.Ports = map[string]int{}
		}
		s.Ports[resource] = port
		return nil
	})
}
