package recording

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"iap/internal/sealed"
)

const (
	requestSuffix = ".request.age"
	answerSuffix  = ".answer.age"
	// recount is how often a full folder is looked at again: somebody may have moved files away.
	recount = time.Minute
	// expiry is how often retention looks. Whole days are deleted, so it could be seldom.
	expiry = time.Hour
)

// ErrFull says that the folder holds as much as it may.
var ErrFull = errors.New("the folder of recordings holds as much as it may")

// Options say where and for whom. Dir and Recipients are required.
type Options struct {
	Dir        string
	Recipients sealed.Recipients
	MaxBody    int64         // recorded of each request and of each answer; at most MaxBody
	MaxDisk    int64         // of all files together; 0: no bound
	Retain     time.Duration // 0: for ever
	Sync       bool          // a file is on the disk, not only written, before what it is about goes on
	// Expiring is told before a day's files are deleted; they stay if it fails. Required with Retain.
	Expiring func(ctx context.Context, day string, files int, bytes int64) error
	Logger   *slog.Logger     // nil: silent
	Now      func() time.Time // nil: time.Now
}

// Keeper writes recordings into a folder. Its methods may be called from many goroutines.
type Keeper struct {
	dir        string
	recipients sealed.Recipients
	most       int64
	disk       int64
	retain     time.Duration
	sync       bool
	expiring   func(context.Context, string, int, int64) error
	log        *slog.Logger
	now        func() time.Time
	used       atomic.Int64 // bytes of all files

	mu      sync.Mutex
	counted time.Time // guarded by mu
}

// New opens the folder, which it makes if need be.
func New(o Options) (*Keeper, error) {
	if _, err := o.Recipients.Writer(io.Discard); err != nil {
		return nil, fmt.Errorf("encrypt recordings: %w", err)
	}
	k := &Keeper{
		dir: o.Dir, recipients: o.Recipients, most: o.MaxBody, disk: o.MaxDisk, retain: o.Retain, sync: o.Sync, expiring: o.Expiring, log: o.Logger, now: o.Now,
	}
	if k.most <= 0 || k.most > MaxBody {
		k.most = MaxBody
	}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	if k.now == nil {
		k.now = time.Now
	}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder of recordings: %w", err)
	}
	return k, k.count()
}

// place is where a request's files go, with a separator behind it.
func (k *Keeper) place(id string) (string, error) {
	if !isID(id) {
		return "", fmt.Errorf("%.80q is no id of a request", id)
	}
	if !k.room() {
		return "", ErrFull
	}
	dir := filepath.Join(k.dir, k.now().UTC().Format(time.DateOnly))
	err := os.Mkdir(dir, 0o700)
	switch {
	case errors.Is(err, fs.ErrExist):
	case err != nil:
		return "", err
	case k.sync:
		if err := syncDir(k.dir); err != nil {
			return "", err
		}
	}
	return dir + string(filepath.Separator), nil
}

// room says whether another request may begin. What runs may go over the bound, by one body each.
func (k *Keeper) room() bool {
	if k.disk <= 0 || k.used.Load() < k.disk {
		return true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := k.now(); now.Sub(k.counted) >= recount {
		k.counted = now
		if err := k.count(); err != nil {
			k.log.Error("count recordings", "error", err)
			return false
		}
	}
	return k.used.Load() < k.disk
}

// count looks how much is there.
func (k *Keeper) count() error {
	before := k.used.Load()
	_, bytes, err := weigh(k.dir)
	if err != nil {
		return fmt.Errorf("folder of recordings: %w", err)
	}
	k.used.Add(bytes - before) // what was written meanwhile stays counted
	return nil
}

// weigh counts the files below a folder.
func weigh(dir string) (files int, bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return ignoreGone(err)
		}
		info, err := entry.Info()
		if err == nil {
			files, bytes = files+1, bytes+info.Size()
		}
		return ignoreGone(err)
	})
	return files, bytes, err
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Run deletes what is older than the retention allows, until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	if k.retain <= 0 {
		return
	}
	tick := time.NewTicker(expiry)
	defer tick.Stop()
	for {
		if err := k.Expire(ctx); err != nil {
			k.log.Error("delete expired recordings", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Expire deletes the days that ended longer ago than the retention, each once that has been said.
func (k *Keeper) Expire(ctx context.Context) error {
	if k.retain <= 0 {
		return nil
	}
	days, err := os.ReadDir(k.dir)
	if err != nil {
		return err
	}
	for _, day := range days {
		began, err := time.Parse(time.DateOnly, day.Name())
		if err != nil || !day.IsDir() || k.now().Before(began.AddDate(0, 0, 1).Add(k.retain)) {
			continue
		}
		dir := filepath.Join(k.dir, day.Name())
		files, bytes, err := weigh(dir)
		if err != nil {
			return err
		}
		if err := k.expiring(ctx, day.Name(), files, bytes); err != nil {
			return fmt.Errorf("%s stays, since its end could not be recorded: %w", dir, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		k.used.Add(-bytes)
	}
	return nil
}

// isID keeps a request's id from being a path.
func isID(id string) bool {
	return regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9_-]{0,63}\z`).MatchString(id)
}
