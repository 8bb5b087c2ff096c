// Package keyfile keeps an agent's private key on disk through a change of it.
// It exists because there is a moment in which nobody here knows whether the
// relay has taken the new key yet: whatever stops the process then, the key that
// the relay believes is on disk.
//
//	agent.key        the key in use
//	agent.key.next   its successor: written before the relay hears of it, moved
//	                 to agent.key once the relay has confirmed it
//	agent.key.running  held by the process that runs with the key
//
// Every write is atomic, of mode 0600 and on disk before the next step.
package keyfile

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"iap/auth"
)

const (
	nextSuffix    = ".next"
	runningSuffix = ".running"
)

// Keys are the keys of one file at one moment.
type Keys struct {
	Current ed25519.PrivateKey
	Next    ed25519.PrivateKey // nil: no change is under way
	Since   time.Time          // when Current was made
}

// A File is a key file's path. Its methods may be called concurrently, and by
// several processes.
type File string

// Read reads what is there. The successor is read first: if it is put in use in
// between, it is found as the key in use, and is not missed in both places.
func (f File) Read() (Keys, error) {
	var k Keys
	next, nextErr := auth.LoadKey(f.next())
	var err error
	if k.Current, err = auth.LoadKey(string(f)); err != nil {
		return k, err
	}
	info, err := os.Stat(string(f))
	if err != nil {
		return k, err
	}
	k.Since = info.ModTime()
	switch {
	case errors.Is(nextErr, fs.ErrNotExist), nextErr == nil && next.Equal(k.Current):
		return k, nil
	case nextErr != nil:
		return k, nextErr
	}
	k.Next = next
	return k, nil
}

func (f File) next() string { return string(f) + nextSuffix }

// Prepare makes the successor, or returns the one that waits already: it may be
// the relay's by now, and must not be lost.
func (f File) Prepare(ctx context.Context) (next ed25519.PrivateKey, err error) {
	err = f.locked(ctx, func() error {
		keys, err := f.Read()
		if err != nil {
			return err
		}
		if next = keys.Next; next != nil {
			return nil
		}
		if next, err = auth.NewKey(); err != nil {
			return err
		}
		return auth.SaveKey(f.next(), next)
	})
	if err != nil {
		return nil, fmt.Errorf("prepare the next key: %w", err)
	}
	return next, nil
}

// Promote puts the successor in use, which the relay has confirmed. It does
// nothing if another process was faster.
func (f File) Promote(ctx context.Context, next ed25519.PrivateKey) error {
	err := f.locked(ctx, func() error {
		keys, err := f.Read()
		switch {
		case err != nil:
			return err
		case keys.Current.Equal(next):
			return nil
		case keys.Next == nil || !keys.Next.Equal(next):
			return errors.New("the files were changed by somebody else meanwhile")
		}
		return auth.RenameKey(f.next(), string(f))
	})
	if err != nil {
		return fmt.Errorf("put the next key in use: %w", err)
	}
	return nil
}

func (f File) locked(ctx context.Context, do func() error) error {
	return auth.WithLock(ctx, filepath.Dir(string(f)), filepath.Base(string(f)), do)
}

// ErrTaken: another process runs with this key.
var ErrTaken = errors.New("another iap-agent runs with this key")

// Claim marks the key as in use by this process until release. Two processes
// with one key would take each other's streams, and one would go on with a key
// that the other has replaced.
func (f File) Claim() (release func(), err error) {
	path := string(f) + runningSuffix
	lock := flock.New(path, flock.SetPermissions(0o600))
	held, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("claim %s: %w", f, err)
	}
	if !held {
		who := ""
		if data, err := os.ReadFile(path); err == nil && len(data) < 32 {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil {
				who = fmt.Sprintf(" (pid %d)", pid)
			}
		}
		return nil, fmt.Errorf("%w%s: %s; stop it, or enrol this one with a join token of its own (made with --share)", ErrTaken, who, f)
	}
	_ = os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600) // only for the message above
	return func() { _ = lock.Close() }, nil                               // closing gives it back, whatever it says
}
