package relaykey

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// The files of a ring, in the relay's data folder.
const (
	keyFile   = "relay.key"       // in force
	nextFile  = "relay.key.next"  // prepared
	chainFile = "relay.key.chain" // every link so far, the last MaxChain; no secret
)

// ErrPrepared: a rotation is under way already.
var ErrPrepared = errors.New("the next key is prepared already")

// Files says how keys and statements are kept. Each write is atomic and on disk
// when it returns.
type Files struct {
	LoadKey func(path string) (ed25519.PrivateKey, error) // an error that is fs.ErrNotExist: there is none
	SaveKey func(path string, key ed25519.PrivateKey) error
	NewKey  func() (ed25519.PrivateKey, error)
	Rename  func(from, to string) error
	Write   func(path string, data []byte) error
}

// A Ring is a relay's keys: the one in force, the next, and the chain that led
// here. Its methods may be called concurrently.
//
// The order on disk makes every crash harmless. Prepare writes the next key and
// then the link: a key without a link was shown to nobody and is replaced.
// Activate is one rename: the link was on disk long before.
type Ring struct {
	dir   string
	files Files

	mu      sync.Mutex
	current ed25519.PrivateKey // guarded by mu
	next    ed25519.PrivateKey // guarded by mu; nil: nothing is prepared
	chain   []Link             // guarded by mu; up to the next key
}

// Open reads the ring in dir, and makes a first key if there is none.
func Open(dir string, files Files) (*Ring, error) {
	r := &Ring{dir: dir, files: files}
	var err error
	if r.current, err = files.LoadKey(r.path(keyFile)); errors.Is(err, fs.ErrNotExist) {
		if r.current, err = files.NewKey(); err == nil {
			err = files.SaveKey(r.path(keyFile), r.current)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := r.readChain(); err != nil {
		return nil, err
	}
	return r, r.readNext()
}

func (r *Ring) path(name string) string { return filepath.Join(r.dir, name) }

func (r *Ring) readChain() error {
	data, err := os.ReadFile(r.path(chainFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(data, &r.chain)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", r.path(chainFile), err)
	}
	for i, l := range r.chain {
		if err := l.Verify(); err != nil {
			return fmt.Errorf("read %s: link %d: %w", r.path(chainFile), l.Number, err)
		}
		if i > 0 && (!bytes.Equal(l.Old, r.chain[i-1].New) || l.Number != r.chain[i-1].Number+1) {
			return fmt.Errorf("read %s: link %d does not follow the one before", r.path(chainFile), l.Number)
		}
	}
	if last := len(r.chain) - 1; last >= 0 && !bytes.Equal(r.chain[last].Old, public(r.current)) && !bytes.Equal(r.chain[last].New, public(r.current)) {
		return fmt.Errorf("%s does not lead to the key in %s: one of them was restored without the other", r.path(chainFile), r.path(keyFile))
	}
	return nil
}

// readNext takes a prepared key up again, if its link was written.
func (r *Ring) readNext() error {
	if len(r.chain) == 0 || !bytes.Equal(r.chain[len(r.chain)-1].Old, public(r.current)) {
		return nil
	}
	next, err := r.files.LoadKey(r.path(nextFile))
	if err != nil {
		return fmt.Errorf("the next relay key was announced and cannot be read: %w", err)
	}
	if !bytes.Equal(public(next), r.chain[len(r.chain)-1].New) {
		return fmt.Errorf("%s is not the key that was announced", r.path(nextFile))
	}
	r.next = next
	return nil
}

// Current is the key in force.
func (r *Ring) Current() ed25519.PrivateKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current
}

// Public is the public half of the key in force.
func (r *Ring) Public() ed25519.PublicKey { return public(r.Current()) }

// Shown is the key in force and the chain as clients are shown it, of one moment.
func (r *Ring) Shown() (ed25519.PrivateKey, [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all [][]byte
	for _, l := range r.chain {
		all = append(all, l.Encode())
	}
	return r.current, all
}

// Pending is the link to the prepared key.
func (r *Ring) Pending() (Link, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		return Link{}, false
	}
	return r.chain[len(r.chain)-1], true
}

// Prepare makes the next key, which comes into force at from. ErrPrepared if
// there is one: it may have been shown, and a second would be a fork.
func (r *Ring) Prepare(from time.Time) (Link, error) {
	link, next, err := r.Propose(from)
	if err != nil {
		return link, err
	}
	return link, r.Adopt(link, next)
}

// Propose makes a next key and shows it to nobody: Adopt prepares it, here and at
// whoever shares the key in force.
func (r *Ring) Propose(from time.Time) (Link, ed25519.PrivateKey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next != nil {
		return r.chain[len(r.chain)-1], nil, ErrPrepared
	}
	next, err := r.files.NewKey()
	if err != nil {
		return Link{}, nil, err
	}
	return Sign(r.current, next, r.number()+1, from), next, nil
}

// number is that of the last key in the chain. mu is held.
func (r *Ring) number() int64 {
	if n := len(r.chain); n > 0 {
		return r.chain[n-1].Number
	}
	return 0
}

// Awaits reports whether the link is to the key that would come next.
func (r *Ring) Awaits(link Link) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next == nil && link.Number == r.number()+1
}

// Adopt prepares a next key that was proposed. ErrPrepared if there is one.
func (r *Ring) Adopt(link Link, next ed25519.PrivateKey) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.next != nil:
		return ErrPrepared
	case !bytes.Equal(link.Old, public(r.current)) || !bytes.Equal(link.New, public(next)) || link.Number != r.number()+1:
		return errors.New("the next key does not follow the one in force")
	}
	if err := link.Verify(); err != nil {
		return err
	}
	if err := r.files.SaveKey(r.path(nextFile), next); err != nil {
		return err
	}
	chain := append(append([]Link(nil), r.chain...), link)
	chain = chain[max(0, len(chain)-MaxChain):]
	data, err := json.MarshalIndent(chain, "", "  ")
	if err != nil {
		return err
	}
	if err := r.files.Write(r.path(chainFile), append(data, '\n')); err != nil {
		return err
	}
	r.chain, r.next = chain, next
	return nil
}

// Activate puts the prepared key in force if its time has come, and reports
// whether it did.
func (r *Ring) Activate(now time.Time) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil || now.Before(r.chain[len(r.chain)-1].From) {
		return false, nil
	}
	if err := r.files.Rename(r.path(nextFile), r.path(keyFile)); err != nil {
		return false, fmt.Errorf("put the next relay key in force: %w", err)
	}
	r.current, r.next = r.next, nil
	return true, nil
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }
