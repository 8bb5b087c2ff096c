package rego

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Times of the watch.
const (
	// settleFor is how long the files must be quiet: editors and copying tools
	// write in several steps, and a half-written file is a wrong policy.
	settleFor = 200 * time.Millisecond
	// settleAtMost ends the waiting where something writes all the time.
	settleAtMost = 2 * time.Second
	// lookEvery is the second line: network file systems report no changes, and
	// what is replaced further up the tree is not watched.
	lookEvery = 5 * time.Second
)

// Watch reloads the policy whenever its files change, until ctx ends. Run it in
// a goroutine of the caller's. A policy that does not load leaves the one in
// place; it is tried again when something changes. onReload (nil is allowed)
// learns of each attempt with the revision then in place, and must not block for
// long. Changes made between New and Watch are found at once.
//
// What counts is the content: a file that is replaced by rename, by swapping a
// symbolic link or together with its directory is the same to Watch. A file
// that cannot be read, deleted ones included, is a policy that does not load.
func (e *Engine) Watch(ctx context.Context, onReload func(revision string, err error)) error {
	if onReload == nil {
		onReload = func(string, error) {}
	}
	w := &watch{engine: e, onReload: onReload, seen: map[string]os.FileInfo{}, tried: e.Revision()}
	notifier, err := fsnotify.NewWatcher()
	if err != nil {
		e.logger.WarnContext(ctx, "watch policy by looking only", "every", lookEvery, "error", err)
		w.look(ctx)
		return w.run(ctx, nil, nil)
	}
	defer notifier.Close()
	w.notifier = notifier
	w.look(ctx)
	return w.run(ctx, notifier.Events, notifier.Errors)
}

// watch is the state of one Watch; its goroutine owns it.
type watch struct {
	engine   *Engine
	onReload func(string, error)
	notifier *fsnotify.Watcher // nil: no notifications on this machine
	seen     map[string]os.FileInfo
	tried    string // what the last attempt was made of: a revision or an error's text
	failed   bool   // how the last attempt ended
	real     string // the grants file behind its symbolic links
}

func (w *watch) run(ctx context.Context, events <-chan fsnotify.Event, errs <-chan error) error {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	settled := time.NewTimer(settleFor)
	settled.Stop()
	defer settled.Stop()
	var first time.Time // of the events not yet acted upon
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, open := <-events:
			if !open {
				return fmt.Errorf("watch policy: %w", fsnotify.ErrClosed)
			}
			if !w.concerns(event) {
				continue
			}
		case err := <-errs: // mostly an overflow: events were lost, so look
			w.engine.logger.WarnContext(ctx, "watch policy", "error", err)
		case <-ticker.C:
			if first.IsZero() {
				w.look(ctx)
			}
			continue
		case <-settled.C:
			first = time.Time{}
			w.look(ctx)
			continue
		}
		if first.IsZero() {
			first = time.Now()
		}
		settled.Reset(min(settleFor, max(0, settleAtMost-time.Since(first))))
	}
}

// look follows the files to where they are now, loads them if their content is
// not what was tried last, and reports that.
func (w *watch) look(ctx context.Context) {
	w.follow()
	if tried, err := w.try(ctx); tried && ctx.Err() == nil {
		w.onReload(w.engine.Revision(), err)
	}
}

// try loads the files if they changed. Files that are back to what is in place
// after a failure count as loaded: the trouble is over.
func (w *watch) try(ctx context.Context) (tried bool, err error) {
	e := w.engine
	e.reloading.Lock()
	defer e.reloading.Unlock()
	src, err := readSource(e.cfg, false)
	var content string
	if err != nil {
		content = err.Error()
	} else {
		content = src.revision()
	}
	if content == w.tried {
		return false, nil
	}
	afterFailure := w.failed
	inPlace := err == nil && content == e.Revision()
	if err == nil && !inPlace {
		err = e.install(ctx, src)
	}
	w.tried, w.failed = content, err != nil
	return !inPlace || afterFailure, err
}

// follow watches the directories in which the files stand, those in which they
// really stand behind symbolic links, and the parents of the former, which see
// a directory being replaced.
func (w *watch) follow() {
	if w.notifier == nil {
		return
	}
	for _, dir := range w.engine.cfg.directories() {
		w.watchDir(dir)
		w.watchDir(filepath.Dir(dir))
	}
	w.real, _ = filepath.EvalSymlinks(w.engine.cfg.GrantsFile)
	for _, file := range append([]string{w.engine.cfg.GrantsFile}, w.engine.cfg.Modules...) {
		if real, err := filepath.EvalSymlinks(file); err == nil {
			w.watchDir(filepath.Dir(real))
			w.watchDir(real) // a directory of modules; of a file this adds nothing
		}
	}
}

// watchDir begins to watch a directory, anew if another one stands in its place.
// One that is missing or may not be read is left to its parent and to lookEvery.
func (w *watch) watchDir(dir string) {
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() {
		delete(w.seen, dir)
		return
	}
	before, watched := w.seen[dir]
	if watched && os.SameFile(before, info) {
		return
	}
	if watched {
		_ = w.notifier.Remove(dir) // gone already with the directory, mostly
	}
	if w.notifier.Add(dir) == nil {
		w.seen[dir] = info
	}
}

// directories lists where the configured files stand, as configured.
func (c Config) directories() []string {
	dirs := []string{filepath.Dir(c.GrantsFile)}
	for _, path := range c.Modules {
		if strings.HasSuffix(path, moduleSuffix) {
			path = filepath.Dir(path)
		}
		dirs = append(dirs, filepath.Clean(path))
	}
	return dirs
}

// concerns reports whether an event can mean another policy. Names come and go
// in many ways, so every such event counts; writing to other files that stand
// in the same directory, such as a database, does not.
func (w *watch) concerns(event fsnotify.Event) bool {
	if event.Has(fsnotify.Create) || event.Has(fsnotify.Remove) || event.Has(fsnotify.Rename) {
		return true
	}
	name := filepath.Base(event.Name)
	return strings.HasSuffix(name, moduleSuffix) ||
		name == filepath.Base(w.engine.cfg.GrantsFile) || name == filepath.Base(w.real)
}
