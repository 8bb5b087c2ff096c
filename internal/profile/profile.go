package profile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"iap/internal/config"
)

const (
	// Default is the profile of a user who never named one.
	Default = "default"

	maxName     = 64      // a directory name on every file system
	maxFile     = 1 << 20 // no file of ours comes near; a larger one is not ours
	lockRetry   = 20 * time.Millisecond
	lockTimeout = 5 * time.Second // state.json is held for microseconds; longer means a stuck process
)

var (
	// ErrUnknown: no profile of that name has been saved.
	ErrUnknown = errors.New("no such profile")
	// ErrName: the name cannot be a profile's.
	ErrName = errors.New("a profile's name is 1 to 64 of a-z, 0-9, dot, dash and underscore, and begins with a letter or digit")
)

// Settings are what the user chose; profile.yaml holds them and may be edited by hand.
type Settings struct {
	Relay  string `json:"relay" yaml:"relay"`                         // name as dialled, host[:port]
	CAFile string `json:"ca_file,omitempty" yaml:"ca_file,omitempty"` // PEM file of the authority that signed the relay's certificate; empty: the system's
	Issuer string `json:"issuer,omitempty" yaml:"issuer,omitempty"`   // alias of the identity provider chosen at login; empty: the relay's only one
}

// Profile is one saved relay. Its methods touch the disk; it holds no lock and no file between calls.
type Profile struct {
	Name     string
	Settings Settings
	dirs     Dirs
}

// CheckName says whether name may be a profile's: it becomes a directory, so nothing that could leave one is let through.
func CheckName(name string) error {
	if name == "" || len(name) > maxName || name[0] == '.' || name[0] == '-' || name[0] == '_' {
		return fmt.Errorf("%w: %q", ErrName, name)
	}
	for _, c := range name {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_') {
			return fmt.Errorf("%w: %q", ErrName, name)
		}
	}
	return nil
}

// Open returns the profile called name, saved or not; Saved tells which.
func (d Dirs) Open(name string) (*Profile, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	p := &Profile{Name: name, dirs: d}
	file := d.settingsFile(name)
	data, err := readFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	if err := config.Decode(file, data, &p.Settings); err != nil {
		return nil, err
	}
	return p, nil
}

// Saved reports whether the profile has been written before.
func (p *Profile) Saved() bool {
	_, err := os.Stat(p.dirs.settingsFile(p.Name))
	return err == nil
}

// CredentialsDir is where package auth keeps what it must put in files.
func (p *Profile) CredentialsDir() string { return p.dirs.credentials(p.Name) }

// Dir is the profile's own directory for running state, such as what connect listens on.
func (p *Profile) Dir() string { return p.dirs.stateDir(p.Name) }

// Save writes the settings.
func (p *Profile) Save() error {
	return writeFile(p.dirs.settingsFile(p.Name), p.Settings.yaml())
}

// yaml writes the settings by hand: three scalars, and a JSON string is a YAML string.
func (s Settings) yaml() []byte {
	var b strings.Builder
	line := func(key, value string) {
		if value == "" {
			return
		}
		quoted, _ := json.Marshal(value) // a string always marshals
		fmt.Fprintf(&b, "%s: %s\n", key, quoted)
	}
	line("relay", s.Relay)
	line("ca_file", s.CAFile)
	line("issuer", s.Issuer)
	return []byte(b.String())
}

// Current is the name that counts when none is given: the one last used or Default.
func (d Dirs) Current() (string, error) {
	data, err := readFile(d.currentFile())
	if errors.Is(err, fs.ErrNotExist) {
		return Default, nil
	}
	if err != nil {
		return "", err
	}
	name := strings.TrimSpace(string(data))
	if err := CheckName(name); err != nil {
		return "", fmt.Errorf("%s: %w", d.currentFile(), err)
	}
	return name, nil
}

// Use makes name the current profile; it must have been saved.
func (d Dirs) Use(name string) error {
	p, err := d.Open(name)
	if err != nil {
		return err
	}
	if !p.Saved() {
		return fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	return writeFile(d.currentFile(), []byte(name+"\n"))
}

// List returns the names of all saved profiles, sorted.
func (d Dirs) List() ([]string, error) {
	entries, err := os.ReadDir(d.profiles()) // sorted by name
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list profiles: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && CheckName(e.Name()) == nil {
			if _, err := os.Stat(d.settingsFile(e.Name())); err == nil {
				names = append(names, e.Name())
			}
		}
	}
	return names, nil
}

// Remove deletes a profile's files, remembered state included. Credentials in a keyring are the caller's to delete first.
func (d Dirs) Remove(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if _, err := os.Stat(d.settingsFile(name)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	if err := os.RemoveAll(d.stateDir(name)); err != nil {
		return fmt.Errorf("remove state of profile %q: %w", name, err)
	}
	if err := os.RemoveAll(filepath.Dir(d.settingsFile(name))); err != nil {
		return fmt.Errorf("remove profile %q: %w", name, err)
	}
	if current, err := d.Current(); err == nil && current == name {
		if err := os.Remove(d.currentFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget current profile: %w", err)
		}
	}
	return nil
}

// withLock runs f while no other process changes this profile's state.
func (p *Profile) withLock(ctx context.Context, f func() error) error {
	if err := os.MkdirAll(p.Dir(), 0o700); err != nil {
		return fmt.Errorf("make directory %s: %w", p.Dir(), err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	lock := flock.New(filepath.Join(p.Dir(), "state.lock"))
	if _, err := lock.TryLockContext(ctx, lockRetry); err != nil {
		return fmt.Errorf("lock profile %q: %w", p.Name, err)
	}
	defer func() { _ = lock.Unlock() }() // the kernel drops it with the descriptor anyway
	return f()
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("read %s: larger than %d bytes", path, maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}
