package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Restored says where the parts are.
type Restored struct {
	Manifest *Manifest
	Dir      string // the data folder
	Log      string // the old log's folder in it; "": there is none
	Config   string // that of relay.yaml and the policy
}

// Restore unpacks a backup into a new data folder, dir, which may be there if it is empty.
// ready is asked when all is checked and lies in a draft beside it; dir is there when ready
// has agreed, and not before.
//
// The log goes to a folder of its own, as history, and the relay gets another id: it writes
// another log. Agents hold checkpoints of the old one that may be younger than the backup, and
// would rightly take a log that goes on at an older line for a forgery.
func Restore(ctx context.Context, from io.Reader, dir string, ready func(draft string, r *Restored) error) (_ *Restored, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	switch there, err := os.ReadDir(dir); {
	case err == nil && len(there) > 0:
		return nil, fmt.Errorf("restore: %s is not empty; name a new folder, so that nothing is mixed", dir)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("restore: %w", err)
	}
	draft, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".restore-") // nobody else may look into it
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(draft)) }()
	packed := filepath.Join(draft, "packed")
	if err := os.Mkdir(packed, 0o700); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	m, err := Read(ctx, from, packed)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	whole := filepath.Join(draft, "data")
	r, err := arrange(packed, whole, m)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	if err := ready(whole, r); err != nil {
		return nil, err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("restore: %w", err)
	}
	if err := os.Rename(whole, dir); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	r.Dir = dir
	for _, path := range []*string{&r.Log, &r.Config} {
		if *path != "" {
			*path = filepath.Join(dir, *path)
		}
	}
	return r, nil
}

// arrange makes a data folder of the parts.
func arrange(packed, whole string, m *Manifest) (*Restored, error) {
	r := &Restored{Manifest: m, Dir: whole}
	has := func(name string) bool {
		_, err := os.Lstat(filepath.Join(packed, name))
		return err == nil
	}
	if !has("data") {
		return nil, fmt.Errorf("%w: it holds no data folder", ErrIncomplete)
	}
	moves := [][2]string{{filepath.Join(packed, "data"), whole}}
	if has(StateName) {
		moves = append(moves, [2]string{filepath.Join(packed, StateName), filepath.Join(whole, StateName)})
	}
	if has("audit") {
		r.Log = "audit-" + m.Taken.UTC().Format("20060102T150405Z")
		moves = append(moves, [2]string{filepath.Join(packed, "audit"), filepath.Join(whole, r.Log)})
	}
	if has("config") {
		r.Config = "config"
		moves = append(moves, [2]string{filepath.Join(packed, "config"), filepath.Join(whole, r.Config)})
	}
	for _, move := range moves {
		if _, err := os.Lstat(move[1]); err == nil {
			return nil, fmt.Errorf("%s stands in the data folder and beside it", filepath.Base(move[1]))
		}
		if err := os.Rename(move[0], move[1]); err != nil {
			return nil, err
		}
	}
	return r, nil
}
