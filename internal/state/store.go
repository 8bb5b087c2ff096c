package state

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Sizes and waits.
const (
	MaxKey   = 512       // bytes of a key: a principal's id (issuer, subject of 255 bytes) with room for a prefix
	MaxValue = 256 << 10 // bytes of a value: an item is a record, not a document
	MaxPage  = 1000      // items of one List at most
	MaxBatch = 500       // writes of one SwapAll at most: it holds up every other write

	pageBytes    = 4 << 20         // values of one List at most, so that a page of the largest values stays small
	watchBuffer  = 256             // changes a watcher may lag behind before it is told to list again
	sweepEvery   = time.Minute     // expired items are invisible at once; sweeping only gives their space back
	sweepBatch   = 500             // items deleted in one transaction, so that sweeping never holds up a login for long
	busyTimeout  = 5 * time.Second // a backup tool may hold the file's lock for a moment
	writeTimeout = 10 * time.Second
	lockTimeout  = 3 * time.Second // a predecessor that is just ending still holds the lock file
	lockRetry    = 50 * time.Millisecond
)

var (
	// ErrNotFound: there is no such item, or it has expired.
	ErrNotFound = errors.New("no such item")
	// ErrConflict: the item is not (or no longer) at the version the caller named.
	ErrConflict = errors.New("item has changed")
	// ErrUnavailable: the store could not be reached or could not write; nothing is known about the item. Callers grant
	// nothing new on it.
	ErrUnavailable = errors.New("state is unavailable")
	// ErrInvalid: the key or value is outside the contract's bounds; trying again cannot help.
	ErrInvalid = errors.New("invalid key or value")
	// ErrDamaged: the file cannot be trusted. Open returns it, having changed nothing.
	ErrDamaged = errors.New("state file is damaged")
)

// Item is one entry. Value belongs to the caller.
type Item struct {
	Key     string
	Value   []byte
	Version int64
	Expires time.Time // zero: never
}

// Write is one swap among those of a SwapAll.
type Write struct {
	Key     string
	Version int64
	Value   []byte
	Expires time.Time
}

// Change tells a watcher of one write, or that it missed some.
type Change struct {
	Item    Item // as written; of a deleted item only Key and Version (the deletion's own). Value is shared: do not write to it
	Deleted bool // deleted by a caller, or expired and swept
	Resync  bool // the watcher was too slow and changes were dropped: list again. Nothing else is set
}

// Store is the contract. All methods may be called concurrently; each honours its context while it waits, and a write
// that has begun is finished, so that its outcome is never in doubt. Errors match one of the package's sentinels or the
// context's.
type Store interface {
	// Get returns the item, or ErrNotFound.
	Get(ctx context.Context, key string) (Item, error)
	// Swap writes the item if it is at version (0: does not exist) and returns its new version, or ErrConflict.
	Swap(ctx context.Context, key string, version int64, value []byte, expires time.Time) (int64, error)
	// SwapAll does each of at most MaxBatch writes, in order, as Swap would, all in one commit. It returns the new version
	// of each, 0 where Swap would have returned ErrConflict: those are left out and the others written.
	SwapAll(ctx context.Context, writes []Write) ([]int64, error)
	// Delete removes the item if it is at version (-1: at any), else ErrConflict; ErrNotFound if there is none.
	Delete(ctx context.Context, key string, version int64) error
	// List returns items whose keys begin with prefix and are greater than after, in the order of their bytes. A page may
	// be shorter than limit (≤ 0: MaxPage); only an empty page is the end. See All.
	List(ctx context.Context, prefix, after string, limit int) ([]Item, error)
	// Watch reports every later change of keys that begin with prefix, in order. The channel is bounded: a watcher that
	// falls behind gets one Change with Resync and must list again. It is closed when ctx ends or the store closes.
	// For a complete picture call Watch first and list then.
	Watch(ctx context.Context, prefix string) (<-chan Change, error)
	// Close ends all watches and releases the file. Further calls return ErrUnavailable.
	Close() error
}

// Options are what the surroundings supply. The zero value is useful.
type Options struct {
	Now    func() time.Time // for expiry; nil: time.Now
	Logger *slog.Logger     // nil: silent
}

// Open opens the store that url names; see the package documentation for the forms.
func Open(ctx context.Context, url string) (Store, error) {
	return OpenWith(ctx, url, Options{})
}

// OpenWith is Open with surroundings of the caller's choice.
func OpenWith(ctx context.Context, url string, o Options) (Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	scheme, rest, ok := strings.Cut(url, ":")
	switch {
	case ok && scheme == "sqlite" && rest == ":memory:":
		return openMemory(ctx, o)
	case ok && scheme == "sqlite":
		path := strings.TrimPrefix(rest, "//")
		if path == "" {
			return nil, fmt.Errorf("open state: %q names no file; want sqlite:/path/state.db", url)
		}
		return openFile(ctx, path, o)
	case ok && (scheme == "postgres" || scheme == "postgresql"):
		return openPostgres(ctx, url, o)
	default:
		return nil, errors.New("open state: unknown kind of URL; want sqlite:/path/state.db (one relay) or postgres://user@host/database (several)")
	}
}

// All iterates over the items below prefix, page by page. Items that change meanwhile may be seen before or after.
func All(ctx context.Context, s Store, prefix string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		after := ""
		for {
			page, err := s.List(ctx, prefix, after, 0)
			if err != nil {
				yield(Item{}, err)
				return
			}
			if len(page) == 0 {
				return
			}
			for _, item := range page {
				if !yield(item, nil) {
					return
				}
			}
			after = page[len(page)-1].Key
		}
	}
}

func checkKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("%w: empty key", ErrInvalid)
	case len(key) > MaxKey:
		return fmt.Errorf("%w: key of %d bytes, at most %d", ErrInvalid, len(key), MaxKey)
	case !utf8.ValidString(key) || strings.ContainsFunc(key, unicode.IsControl):
		return fmt.Errorf("%w: key %q has control characters or is not UTF-8", ErrInvalid, key)
	}
	return nil
}

func checkBatch(writes []Write) error {
	if len(writes) > MaxBatch {
		return fmt.Errorf("%w: %d writes at once, at most %d", ErrInvalid, len(writes), MaxBatch)
	}
	for _, w := range writes {
		if err := checkItem(w.Key, w.Value); err != nil {
			return err
		}
	}
	return nil
}

func checkItem(key string, value []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if len(value) > MaxValue {
		return fmt.Errorf("%w: value of %d bytes under %q, at most %d", ErrInvalid, len(value), key, MaxValue)
	}
	return nil
}
