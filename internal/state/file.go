package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	schemaVersion = 1
	applicationID = 0x69617031 // "iap1" in SQLite's header: tells our files from those of other programs
	readers       = 4          // reading connections: reads are short, more would only cost memory

	sqlSchema = `
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE items (key TEXT PRIMARY KEY, value BLOB NOT NULL, version INTEGER NOT NULL, expires INTEGER NOT NULL);
CREATE INDEX items_expires ON items (expires) WHERE expires > 0;
INSERT INTO meta (name, value) VALUES ('schema', 1), ('version', 0);
`
)

func openMemory(ctx context.Context, o Options) (Store, error) {
	db, err := connect("file::memory:", 1)
	if err != nil {
		return nil, err
	}
	s := &sqliteStore{name: "memory", now: o.Now, log: o.Logger, write: db, read: db}
	if _, err := db.ExecContext(ctx, sqlSchema); err != nil {
		return nil, errors.Join(s.failed(ctx, "create tables", err), db.Close())
	}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func openFile(ctx context.Context, path string, o Options) (Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	s := &sqliteStore{name: path, now: o.Now, log: o.Logger}
	if s.lock, err = takeLock(ctx, path); err != nil {
		return nil, err
	}
	if err := s.open(ctx, path); err != nil {
		return nil, errors.Join(err, s.closeDatabases())
	}
	return s, nil
}

// takeLock makes this process the file's only user: another one's changes would not reach our watchers.
func takeLock(ctx context.Context, path string) (*flock.Flock, error) {
	lock := flock.New(path+".lock", flock.SetPermissions(0o600))
	wait, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	locked, err := lock.TryLockContext(wait, lockRetry)
	switch {
	case locked:
		return lock, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case wait.Err() != nil:
		return nil, fmt.Errorf("open state: %s is in use by another process", path)
	}
	return nil, fmt.Errorf("open state: lock %s: %w", path, err)
}

func (s *sqliteStore) open(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		err = create(ctx, path)
	case err == nil:
		err = check(ctx, path, info)
	}
	if err != nil {
		return err
	}
	dsn := fileDSN(path, "rw") + "&_txlock=immediate&_pragma=synchronous(FULL)&_pragma=journal_mode(WAL)"
	if s.write, err = connect(dsn, 1); err != nil {
		return err
	}
	if s.read, err = connect(fileDSN(path, "rw")+"&_pragma=query_only(1)", readers); err != nil {
		return err
	}
	return s.start(ctx)
}

// create makes the file under another name first: whatever bears the real name is complete.
func create(ctx context.Context, path string) error {
	if left, _ := filepath.Glob(path + "-wal"); len(left) > 0 {
		return fmt.Errorf("open state: %w: %s is missing but %s-wal is there; put the file back, or move the -wal file "+
			"away to start with an empty state (agents, logins and revocations are forgotten)", ErrDamaged, path, path)
	}
	draft := path + ".new"
	if err := os.Remove(draft); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("create state: %w", err)
	}
	file, err := os.OpenFile(draft, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("create state: %w", err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("create state: %w", err)
	}
	db, err := connect(fileDSN(draft, "rw")+"&_pragma=synchronous(FULL)&_pragma=journal_mode(WAL)", 1)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d; BEGIN; %s COMMIT;", applicationID, sqlSchema))
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("create state in %s: %w: %s", path, ErrUnavailable, explain(err))
	}
	if err := os.Rename(draft, path); err != nil {
		return fmt.Errorf("create state: %w", err)
	}
	return nil
}

// check reads the file through a connection that cannot change it, so that a refused file stays as it was found.
func check(ctx context.Context, path string, info os.FileInfo) error {
	if info.Size() == 0 {
		return damaged(path, "it is empty")
	}
	db, err := connect(fileDSN(path, "ro"), 1)
	if err != nil {
		return err
	}
	defer db.Close()
	var id, schema int
	var verdict string
	err = db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id)
	if err == nil && id != applicationID {
		return damaged(path, "it is not a state file of this program")
	}
	if err == nil {
		err = db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict)
	}
	if err == nil && verdict != "ok" {
		return damaged(path, verdict)
	}
	if err == nil {
		err = db.QueryRowContext(ctx, "SELECT value FROM meta WHERE name = 'schema'").Scan(&schema)
	}
	switch {
	case err == nil && schema == schemaVersion:
		return nil
	case err == nil:
		return fmt.Errorf("open state: %s has layout %d and this program knows layout %d; use the program that wrote it",
			path, schema, schemaVersion)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	switch code(err) {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR:
		return damaged(path, err.Error())
	}
	return fmt.Errorf("open state in %s: %w: %s", path, ErrUnavailable, explain(err))
}

func damaged(path, why string) error {
	return fmt.Errorf("open state: %w: %s: %s; nothing was changed. Put a backup in its place, or move it away to start "+
		"with an empty state (agents, logins and revocations are then forgotten)", ErrDamaged, path, why)
}

func connect(dsn string, conns int) (*sql.DB, error) {
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// fileDSN names the file as a URI, in which every character of a path can be written.
func fileDSN(path, mode string) string {
	slashed := filepath.ToSlash(path)
	if !strings.HasPrefix(slashed, "/") {
		slashed = "/" + slashed // a drive letter
	}
	uri := url.URL{Scheme: "file", Path: slashed}
	return fmt.Sprintf("%s?mode=%s&_pragma=busy_timeout(%d)", uri.String(), mode, busyTimeout.Milliseconds())
}
