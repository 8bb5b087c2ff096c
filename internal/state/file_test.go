package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func openTest(t *testing.T, path string, now func() time.Time) *sqliteStore {
	t.Helper()
	s, err := OpenWith(t.Context(), "sqlite:"+path, Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(*sqliteStore)
}

func TestCommitsAreSyncedAndLogged(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "state.db"), nil)
	var mode string
	var level int
	if err := s.write.QueryRow("PRAGMA journal_mode").Scan(&mode); err != nil || mode != "wal" {
		t.Errorf("journal mode %q, %v", mode, err)
	}
	if err := s.write.QueryRow("PRAGMA synchronous").Scan(&level); err != nil || level != 2 {
		t.Errorf("synchronous is %d, want 2 (FULL), %v", level, err)
	}
}

func TestSweepDeletesExpiredItemsAndTellsWatchers(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := openTest(t, filepath.Join(t.TempDir(), "state.db"), func() time.Time { return now })
	const expiring = sweepBatch + 20
	for i := range expiring {
		if _, err := s.Swap(t.Context(), fmt.Sprintf("old/%04d", i), 0, nil, now.Add(time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	last, err := s.Swap(t.Context(), "kept", 0, nil, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	changes, err := s.Watch(t.Context(), "old/0")
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	if err := s.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := s.write.QueryRow("SELECT count(*) FROM items").Scan(&left); err != nil || left != 1 {
		t.Errorf("%d items left, %v", left, err)
	}
	c := <-changes
	if !c.Deleted || c.Item.Version <= last {
		t.Errorf("watcher got %+v", c)
	}
	next, err := s.Swap(t.Context(), "new", 0, nil, time.Time{})
	if err != nil || next != last+expiring+1 {
		t.Errorf("version %d after %d and %d deletions, %v", next, last, expiring, err)
	}
}

// TestWriteThatHasBegunIsFinished ends the caller's context inside the transaction: its outcome must be definite.
func TestWriteThatHasBegunIsFinished(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "state.db"), nil)
	ctx, cancel := context.WithCancel(t.Context())
	err := s.update(ctx, "test", func(own context.Context, tx *sql.Tx) ([]Change, error) {
		cancel()
		_, err := tx.StmtContext(own, s.stmt.put).ExecContext(own, "k", []byte{}, 1, 0)
		return nil, err
	})
	if err != nil {
		t.Errorf("update: %v", err)
	}
	if _, err := s.Get(t.Context(), "k"); err != nil {
		t.Errorf("get: %v", err)
	}
}

func TestWaitForTheWriterEndsWithTheContext(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "state.db"), nil)
	<-s.turn
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := s.Swap(ctx, "k", 0, nil, time.Time{})
		result <- err
	}()
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("swap: %v", err)
	}
	s.turn <- struct{}{}
}

func TestOtherProgramsAndNewerLayoutsAreRefused(t *testing.T) {
	dir := t.TempDir()
	foreign := filepath.Join(dir, "foreign.db")
	db, err := sql.Open("sqlite", foreign)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("CREATE TABLE t (x)"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, err := Open(t.Context(), "sqlite:"+foreign); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "not a state file") {
		t.Errorf("open of another program's file: %v", err)
	}

	newer := filepath.Join(dir, "newer.db")
	s := openTest(t, newer, nil)
	if _, err := s.write.Exec("UPDATE meta SET value = 99 WHERE name = 'schema'"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Open(t.Context(), "sqlite:"+newer); err == nil || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "layout 99") {
		t.Errorf("open of a newer layout: %v", err)
	}
}

func TestInterruptedCreationIsBegunAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(path+".new", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	openTest(t, path, nil)
}

func TestMissedChangesAreAlwaysFollowedByAResync(t *testing.T) {
	one := &watch{changes: make(chan Change, 4)}
	for range 20 {
		one.send(Change{Item: Item{Key: "k"}})
	}
	for i := range 3 {
		if c := <-one.changes; c.Resync {
			t.Errorf("change %d is a Resync", i)
		}
	}
	one.send(Change{Item: Item{Key: "dropped: the Resync is still unread"}})
	if c := <-one.changes; !c.Resync {
		t.Errorf("got %+v, want a Resync", c)
	}
	one.send(Change{Item: Item{Key: "new"}})
	if c := <-one.changes; c.Item.Key != "new" {
		t.Errorf("got %+v after the Resync", c)
	}
}
