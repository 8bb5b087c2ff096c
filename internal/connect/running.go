package connect

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

const (
	stopPoll     = 500 * time.Millisecond // how soon a connect notices that it was asked to stop; one stat each
	waitPoll     = 50 * time.Millisecond
	claimWait    = 200 * time.Millisecond // another process that only looks holds the lock for microseconds
	claimPoll    = 10 * time.Millisecond
	maxRunFile   = 64 << 10
	maxPlainName = 100 // longer resource names are hashed into their file's name
)

// ErrAlreadyRunning: another process of this profile serves the resource.
var ErrAlreadyRunning = errors.New("already connected")

// Running is one served resource as other processes find it on disk. It holds the local key, so its file is 0600.
type Running struct {
	ID       string    `json:"id"` // random for each run: a stale stop never hits a newer run
	PID      int       `json:"pid"`
	Resource string    `json:"resource"`
	Kind     string    `json:"kind"`
	Port     int       `json:"port"`
	Addrs    []string  `json:"addrs"` // host:port of each listener
	Detached bool      `json:"detached"`
	LocalKey string    `json:"local_key,omitempty"`
	Started  time.Time `json:"started"`
	// LoginNeeded says that the process waits for a login. It stands in a file of its own, so that saying so cannot bring back a run
	// file that was removed to end the process.
	LoginNeeded bool `json:"-"`
}

// Registry is the directory in which the connects of one profile are found. A lock that the serving process holds says that it
// lives; process ids alone could belong to somebody else by now. Removing the file asks the process to stop serving.
type Registry struct{ Dir string }

// Claim is the right to serve one resource.
type Claim struct {
	registry Registry
	resource string
	id       string
	lock     *flock.Flock
}

// fileName makes a resource's name safe to be a file's.
func fileName(resource string) string {
	plain := resource != "" && len(resource) <= maxPlainName && resource[0] != '.'
	for _, c := range resource {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			plain = false
		}
	}
	if plain {
		return resource
	}
	sum := sha256.Sum256([]byte(resource))
	return "_" + hex.EncodeToString(sum[:16])
}

func (r Registry) runFile(resource string) string {
	return filepath.Join(r.Dir, fileName(resource)+".json")
}

func (r Registry) lockFile(resource string) string {
	return filepath.Join(r.Dir, fileName(resource)+".lock")
}

func (r Registry) loginFile(resource string) string {
	return filepath.Join(r.Dir, fileName(resource)+".login")
}

// Claim takes the right to serve resource, or fails with ErrAlreadyRunning.
func (r Registry) Claim(resource, id string) (*Claim, error) {
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory %s: %w", r.Dir, err)
	}
	lock := flock.New(r.lockFile(resource), flock.SetPermissions(0o600))
	ctx, cancel := context.WithTimeout(context.Background(), claimWait)
	defer cancel()
	if ok, err := lock.TryLockContext(ctx, claimPoll); errors.Is(err, context.DeadlineExceeded) {
		return nil, ErrAlreadyRunning
	} else if err != nil || !ok {
		return nil, fmt.Errorf("lock %s: %w", r.lockFile(resource), err)
	}
	_ = os.Remove(r.loginFile(resource)) // of a run that was killed
	return &Claim{registry: r, resource: resource, id: id, lock: lock}, nil
}

// Publish writes where the resource is served.
func (c *Claim) Publish(run Running) error {
	run.ID, run.Resource = c.id, c.resource
	data, err := json.MarshalIndent(run, "", "  ")
	if err != nil {
		return fmt.Errorf("encode run file: %w", err)
	}
	file := c.registry.runFile(c.resource)
	tmp := file + ".tmp" // the claim's lock makes this process the only writer
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("write run file: %w", err)
	}
	if err := os.Rename(tmp, file); err != nil {
		return fmt.Errorf("write run file: %w", err)
	}
	return nil
}

// NeedLogin says to other processes whether this one waits for a login.
func (c *Claim) NeedLogin(needed bool) error {
	file := c.registry.loginFile(c.resource)
	if !c.lock.Locked() {
		return nil // given back: the next one's business
	}
	var err error
	if needed {
		err = os.WriteFile(file, nil, 0o600)
	} else if err = os.Remove(file); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("tell of the login: %w", err)
	}
	return nil
}

// Wait returns when ctx ends or when somebody asked this run to stop by removing its file.
func (c *Claim) Wait(ctx context.Context) {
	tick := time.NewTicker(stopPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			run, err := c.registry.read(c.resource)
			if errors.Is(err, fs.ErrNotExist) || err == nil && run.ID != c.id {
				return
			}
		}
	}
}

// Release gives the right back and removes the file. A second call does nothing.
func (c *Claim) Release() error {
	if run, err := c.registry.read(c.resource); err == nil && run.ID == c.id {
		_ = os.Remove(c.registry.runFile(c.resource))
		_ = os.Remove(c.registry.loginFile(c.resource))
	}
	return c.lock.Unlock()
}

func (r Registry) read(resource string) (Running, error) { return readRunFile(r.runFile(resource)) }

func readRunFile(path string) (Running, error) {
	var run Running
	data, err := os.ReadFile(path)
	if err != nil {
		return run, err
	}
	if len(data) > maxRunFile {
		return run, fmt.Errorf("read %s: too large", path)
	}
	if err := json.Unmarshal(data, &run); err != nil {
		return run, fmt.Errorf("read %s: %w", path, err)
	}
	return run, nil
}

// alive reports whether a process holds the resource's lock.
func (r Registry) alive(resource string) bool {
	if _, err := os.Stat(r.lockFile(resource)); err != nil {
		return false
	}
	lock := flock.New(r.lockFile(resource), flock.SetPermissions(0o600))
	ok, err := lock.TryLock()
	if ok {
		_ = lock.Unlock()
	}
	return !ok && err == nil
}

// Lookup tells where a resource is served now.
func (r Registry) Lookup(resource string) (Running, bool) {
	run, err := r.read(resource)
	if err != nil || !r.alive(resource) {
		return Running{}, false
	}
	return r.withLogin(run), true
}

func (r Registry) withLogin(run Running) Running {
	_, err := os.Stat(r.loginFile(run.Resource))
	run.LoginNeeded = err == nil
	return run
}

// List returns every resource served now, by name.
func (r Registry) List() ([]Running, error) {
	entries, err := os.ReadDir(r.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	var runs []Running
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		run, err := readRunFile(filepath.Join(r.Dir, e.Name()))
		if err == nil && fileName(run.Resource)+".json" == e.Name() && r.alive(run.Resource) {
			runs = append(runs, r.withLogin(run))
		}
	}
	sort.Slice(runs, func(i, j int) bool { return runs[i].Resource < runs[j].Resource })
	return runs, nil
}

// Stop asks the process that serves resource to stop and waits until it has. It reports false when nobody served it.
func (r Registry) Stop(ctx context.Context, resource string) (bool, error) {
	if _, ok := r.Lookup(resource); !ok {
		return false, nil
	}
	if err := os.Remove(r.runFile(resource)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return true, fmt.Errorf("ask %s to stop: %w", resource, err)
	}
	tick := time.NewTicker(waitPoll)
	defer tick.Stop()
	for r.alive(resource) {
		select {
		case <-ctx.Done():
			return true, fmt.Errorf("wait for the end of %s: %w", resource, ctx.Err())
		case <-tick.C:
		}
	}
	return true, nil
}
