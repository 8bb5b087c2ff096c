package profile

import (
	"context"
	"encoding/base64"
	"fmt"

	"iap/internal/relaykey"
)

// RelayPin is the relay's key as it is remembered, and what that has said of the next. Binary values are base64.
type RelayPin struct {
	Number int64    `json:"number,omitempty" yaml:"number,omitempty"` // of the key among the relay's keys
	Next   string   `json:"next,omitempty" yaml:"next,omitempty"`     // the statement by which it names the next
	Past   []string `json:"past,omitempty" yaml:"past,omitempty"`     // hashes of the keys before
}

// pin reads what is remembered. What cannot be read is left out: less is believed then, not more.
func (s State) pin() relaykey.Pin {
	key, _ := base64.StdEncoding.DecodeString(s.RelayKey)
	p := relaykey.Pin{Key: key, Number: s.RelayPin.Number}
	p.Next, _ = base64.StdEncoding.DecodeString(s.RelayPin.Next)
	for _, one := range s.RelayPin.Past {
		if hash, err := base64.StdEncoding.DecodeString(one); err == nil {
			p.Past = append(p.Past, hash)
		}
	}
	return p
}

func (s *State) setPin(p relaykey.Pin) {
	s.RelayKey = base64.StdEncoding.EncodeToString(p.Key)
	s.RelayPin = RelayPin{Number: p.Number, Next: base64.StdEncoding.EncodeToString(p.Next)}
	for _, hash := range p.Past {
		s.RelayPin.Past = append(s.RelayPin.Past, base64.StdEncoding.EncodeToString(hash))
	}
}

// followKey judges the key that a relay shows, with what it shows of how its keys name each other.
func (s State) followKey(key []byte, chain [][]byte) (relaykey.Pin, error) {
	next, err := s.pin().Follow(key, chain)
	if err != nil {
		return next, fmt.Errorf("%w: %w", ErrRelayKeyChanged, err)
	}
	return next, nil
}

// CheckRelayKey is CheckRelay for the key alone, of what is remembered at this moment.
func (p *Profile) CheckRelayKey(key []byte, chain [][]byte) error {
	s, err := p.State()
	if err != nil || s.RelayKey == "" {
		return err
	}
	_, err = s.followKey(key, chain)
	return err
}

// LearnRelayKeys keeps what a relay has shown that has proven its key: the key, if the one remembered has named it, and
// the one to come.
func (p *Profile) LearnRelayKeys(ctx context.Context, key []byte, chain [][]byte) error {
	s, err := p.State()
	if err != nil || s.RelayKey == "" {
		return err // the first key is Remember's
	}
	if next, err := s.followKey(key, chain); err != nil || next.Equal(s.pin()) {
		return err
	}
	return p.Update(ctx, func(s *State) error {
		next, err := s.followKey(key, chain)
		if err == nil {
			s.setPin(next)
		}
		return err
	})
}
