package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// update runs f in a transaction of the one writer and publishes the changes it returns once they are committed. The
// caller's context ends the wait for the turn; after that the transaction has a deadline of its own, so that its outcome
// is always known.
func (s *sqliteStore) update(ctx context.Context, op string, f func(context.Context, *sql.Tx) ([]Change, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-s.closed:
		return errClosed
	default:
	}
	select {
	case <-s.turn:
	case <-s.closed:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { s.turn <- struct{}{} }()
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	tx, err := s.write.BeginTx(own, nil)
	if err != nil {
		return s.failed(own, op, err)
	}
	changes, err := f(own, tx)
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		// What stopped the transaction is worth telling, not that it cannot be rolled back twice.
		_ = tx.Rollback()
		if errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound) {
			return err
		}
		return s.failed(own, op, err)
	}
	s.watch.publish(changes)
	return nil
}

// put writes one item if it is at the version that w names. A conflict has changed nothing.
func (s *sqliteStore) put(ctx context.Context, tx *sql.Tx, w Write) (Item, error) {
	now, err := s.current(ctx, tx, w.Key)
	if err != nil {
		return Item{}, err
	}
	if now != w.Version {
		return Item{}, fmt.Errorf("swap %q: %w: at version %d, not %d", w.Key, ErrConflict, now, w.Version)
	}
	next := Item{Key: w.Key, Value: append([]byte{}, w.Value...), Expires: w.Expires} // not nil, which SQL knows as NULL
	if next.Version, err = s.advance(ctx, tx, 1); err != nil {
		return Item{}, err
	}
	_, err = tx.StmtContext(ctx, s.stmt.put).ExecContext(ctx, w.Key, next.Value, next.Version, toNano(w.Expires))
	return next, err
}

// current returns the version of a living item, 0 if there is none.
func (s *sqliteStore) current(ctx context.Context, tx *sql.Tx, key string) (int64, error) {
	var version int64
	err := tx.StmtContext(ctx, s.stmt.version).QueryRowContext(ctx, key, s.now().UnixNano()).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return version, err
}

// advance takes the next n versions and returns the last of them.
func (s *sqliteStore) advance(ctx context.Context, tx *sql.Tx, n int64) (int64, error) {
	var last int64
	err := tx.StmtContext(ctx, s.stmt.next).QueryRowContext(ctx, n).Scan(&last)
	return last, err
}

func (s *sqliteStore) sweepLoop() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.closed:
			return
		case <-tick.C:
			if err := s.sweep(context.Background()); err != nil && !errors.Is(err, errClosed) {
				s.log.Warn("expired state could not be swept; it stays invisible and is tried again", "error", err)
			}
		}
	}
}

// sweep deletes what has expired, a batch at a time.
func (s *sqliteStore) sweep(ctx context.Context) error {
	for {
		swept := 0
		err := s.update(ctx, "sweep", func(ctx context.Context, tx *sql.Tx) ([]Change, error) {
			keys, err := s.expired(ctx, tx)
			if err != nil || len(keys) == 0 {
				return nil, err
			}
			swept = len(keys)
			last, err := s.advance(ctx, tx, int64(len(keys)))
			if err != nil {
				return nil, err
			}
			changes := make([]Change, 0, len(keys))
			for i, key := range keys {
				if _, err := tx.StmtContext(ctx, s.stmt.del).ExecContext(ctx, key); err != nil {
					return nil, err
				}
				version := last - int64(len(keys)-1-i)
				changes = append(changes, Change{Item: Item{Key: key, Version: version}, Deleted: true})
			}
			return changes, nil
		})
		if err != nil || swept < sweepBatch {
			return err
		}
	}
}

func (s *sqliteStore) expired(ctx context.Context, tx *sql.Tx) ([]string, error) {
	rows, err := tx.StmtContext(ctx, s.stmt.old).QueryContext(ctx, s.now().UnixNano(), sweepBatch)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var keys []string
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, rows.Err()
}

// failed makes a driver's error one of the contract's: the context's if that has ended, else ErrUnavailable with a
// reason a person can act on.
func (s *sqliteStore) failed(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s in %s: %w", op, s.name, ctx.Err())
	}
	return fmt.Errorf("%s in %s: %w: %s", op, s.name, ErrUnavailable, explain(err))
}

// explain words the errors that an operator can mend.
func explain(err error) string {
	switch code(err) {
	case sqlite3.SQLITE_FULL:
		return "the disk is full"
	case sqlite3.SQLITE_READONLY:
		return "the file or its directory is read-only"
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return "another process holds the file's lock"
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return "the file or its directory cannot be opened for writing"
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return "the file is damaged (" + err.Error() + ")"
	}
	return err.Error()
}

// code returns SQLite's primary result code, 0 for other errors.
func code(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

func toNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}
