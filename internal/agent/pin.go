package agent

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"

	"iap/auth"
	"iap/internal/relaykey"
)

// maxPin bounds the pin file: a key, a statement and the hashes of keys before.
const maxPin = 16 << 10

// pin is the relay key that the agent holds the relay to: relay_key of agent.yaml,
// or what that has led to since. It is kept beside the key file, since agent.yaml
// is its operator's.
type pin struct {
	file string
	from []byte // relay_key: another one there makes the file void
	log  *slog.Logger

	mu  sync.Mutex
	now relaykey.Pin // guarded by mu
}

// pinned is the pin file.
type pinned struct {
	From []byte       `json:"from"` // relay_key when it was written
	Pin  relaykey.Pin `json:"pin"`
}

func openPin(cfg *Config, log *slog.Logger) (*pin, error) {
	from, err := cfg.relayKey()
	if err != nil {
		return nil, err
	}
	p := &pin{file: strings.TrimSuffix(cfg.KeyFile, ".key") + ".pin", from: from, log: log, now: relaykey.Pin{Key: from}}
	data, err := os.ReadFile(p.file)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	var kept pinned
	if err == nil && len(data) > maxPin {
		err = errors.New("too long")
	}
	if err == nil {
		err = json.Unmarshal(data, &kept)
	}
	if err == nil && len(kept.Pin.Key) != ed25519.PublicKeySize {
		err = errors.New("it holds no key")
	}
	if err != nil {
		return nil, fmt.Errorf("read the relay's pinned key %s: %w; remove the file to begin with relay_key of agent.yaml again", p.file, err)
	}
	if bytes.Equal(kept.From, from) {
		p.now = kept.Pin
	}
	return p, nil
}

// check judges the key that a relay shows, before the relay has proven it.
func (p *pin) check(shown ed25519.PublicKey, chain [][]byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.now.Follow(shown, chain)
	switch {
	case errors.Is(err, relaykey.ErrRetired):
		return fmt.Errorf("%w: it was restored from an old backup, or something in between holds an old key; have its operator put %s back", err, "the newest relay.key and relay.key.chain")
	case err != nil:
		return fmt.Errorf("%w: it was set up anew, or something is in between; if its operator confirms the new key, enrol anew with iap-agent join", err)
	}
	return nil
}

func (p *pin) current() relaykey.Pin {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// learn keeps what a relay that has proven its key has shown.
func (p *pin) learn(shown ed25519.PublicKey, chain [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next, err := p.now.Follow(shown, chain)
	if err != nil {
		p.log.Warn("the relay shows keys that do not follow from the pinned one", "error", err)
		return
	}
	if next.Equal(p.now) {
		return
	}
	if !bytes.Equal(next.Key, p.now.Key) {
		p.log.Info("the relay has a new key, which the pinned one named", "key", relaykey.ID(next.Key), "old_key", relaykey.ID(p.now.Key))
	} else {
		p.log.Info("the relay has announced its next key")
	}
	p.now = next
	data, err := json.Marshal(pinned{From: p.from, Pin: next})
	if err == nil {
		err = auth.WriteFile(p.file, append(data, '\n'))
	}
	if err != nil { // the same is learnt again after the next start
		p.log.Warn("the relay's new key is not kept", "file", p.file, "error", err)
	}
}
