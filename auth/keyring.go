package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/zalando/go-keyring"
)

const (
	keyringService = "iapctl"
	probeName      = "probe"
)

// secretRing is what keyringStore needs of a keyring.
type secretRing interface {
	Set(service, user, secret string) error
	Get(service, user string) (string, error)
	Delete(service, user string) error
}

// keyringStore keeps credentials in a keyring, and in files what the keyring does
// not take.
type keyringStore struct {
	ring  secretRing
	dir   string // tells the profiles of two configuration directories apart
	files fileStore
	log   *slog.Logger
}

func (s *keyringStore) Where() string { return "the system keyring" }

func (s *keyringStore) user(name string) string {
	dir, err := filepath.Abs(s.dir)
	if err != nil {
		dir = s.dir
	}
	return filepath.Join(dir, fileName(name))
}

// probe asks for an entry that need not exist: an answer, even "not found", shows
// that a keyring is there and unlocked.
func (s *keyringStore) probe() error {
	_, err := s.call(context.Background(), func() (string, error) { return s.ring.Get(keyringService, s.user(probeName)) })
	if errors.Is(err, keyring.ErrNotFound) {
		return nil
	}
	return err
}

func (s *keyringStore) Load(ctx context.Context, name string) (Credentials, error) {
	data, err := s.call(ctx, func() (string, error) { return s.ring.Get(keyringService, s.user(name)) })
	if errors.Is(err, keyring.ErrNotFound) {
		return s.files.Load(ctx, name)
	}
	if err != nil {
		return Credentials{}, fmt.Errorf("load credentials %q from keyring: %w", name, err)
	}
	return decodeCredentials([]byte(data))
}

// Save leaves one copy: what is in the keyring is not in the file and the reverse,
// so that a stale refresh token is never presented.
func (s *keyringStore) Save(ctx context.Context, name string, c Credentials) error {
	data, err := encodeCredentials(c)
	if err != nil {
		return err
	}
	_, err = s.call(ctx, func() (string, error) {
		return "", s.ring.Set(keyringService, s.user(name), string(data))
	})
	if err == nil {
		return s.files.Delete(ctx, name)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("save credentials %q in keyring: %w", name, err)
	}
	s.log.Warn("keyring does not take the credentials, they are kept in a file", "file", s.files.path(name), "error", err)
	if err := s.remove(ctx, name); err != nil {
		return err
	}
	return s.files.Save(ctx, name, c)
}

func (s *keyringStore) Delete(ctx context.Context, name string) error {
	return errors.Join(s.remove(ctx, name), s.files.Delete(ctx, name))
}

func (s *keyringStore) remove(ctx context.Context, name string) error {
	_, err := s.call(ctx, func() (string, error) { return "", s.ring.Delete(keyringService, s.user(name)) })
	if err != nil && !errors.Is(err, keyring.ErrNotFound) {
		return fmt.Errorf("delete credentials %q from keyring: %w", name, err)
	}
	return nil
}

// call bounds one call of the keyring, which takes no context and may wait for a
// person or for a bus nobody listens on. A call that does not return keeps its
// goroutine until it does; the channel has room for its answer.
func (s *keyringStore) call(ctx context.Context, f func() (string, error)) (string, error) {
	type answer struct {
		value string
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		value, err := f()
		answered <- answer{value, err}
	}()
	timer := time.NewTimer(keyringTimeout)
	defer timer.Stop()
	select {
	case a := <-answered:
		return a.value, a.err
	case <-timer.C:
		return "", fmt.Errorf("keyring did not answer in %s", keyringTimeout)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// systemKeyring is the operating system's.
type systemKeyring struct{}

var errNoKeyring = errors.New("no session bus, so no keyring")

// available spares servers the attempt to start a session bus.
func (systemKeyring) available() error {
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" || os.Getenv("DBUS_SESSION_BUS_ADDRESS") != "" {
		return nil
	}
	if run := os.Getenv("XDG_RUNTIME_DIR"); run != "" {
		if _, err := os.Stat(filepath.Join(run, "bus")); err == nil {
			return nil
		}
	}
	return errNoKeyring
}

func (k systemKeyring) Get(service, user string) (string, error) {
	if err := k.available(); err != nil {
		return "", err
	}
	return keyring.Get(service, user)
}

func (k systemKeyring) Set(service, user, secret string) error {
	if err := k.available(); err != nil {
		return err
	}
	return keyring.Set(service, user, secret)
}

func (k systemKeyring) Delete(service, user string) error {
	if err := k.available(); err != nil {
		return err
	}
	return keyring.Delete(service, user)
}
