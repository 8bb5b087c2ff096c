package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

// sqliteStore keeps items in an SQLite database. Readers have connections of their own; writes take turns on one, so
// that the order of commits is the order in which watchers hear of them.
type sqliteStore struct {
	name string // for messages
	now  func() time.Time
	log  *slog.Logger

	write *sql.DB // one connection, used by the holder of turn
	read  *sql.DB // the same as write for a store in memory
	stmt  statements
	turn  chan struct{} // holds one value while nobody writes
	watch watches

	lock    *flock.Flock // nil for a store in memory
	closed  chan struct{}
	closing sync.Once
	sweeper sync.WaitGroup
}

type statements struct {
	get, list                    *sql.Stmt // on read
	version, next, put, del, old *sql.Stmt // on write
}

const (
	sqlGet     = `SELECT value, version, expires FROM items WHERE key = ? AND (expires = 0 OR expires > ?)`
	sqlList    = `SELECT key, value, version, expires FROM items WHERE key >= ? AND key < ? AND (expires = 0 OR expires > ?) ORDER BY key LIMIT ?`
	sqlVersion = `SELECT version FROM items WHERE key = ? AND (expires = 0 OR expires > ?)`
	sqlNext    = `UPDATE meta SET value = value + ? WHERE name = 'version' RETURNING value`
	sqlPut     = `INSERT INTO items (key, value, version, expires) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = excluded.version, expires = excluded.expires`
	sqlDelete  = `DELETE FROM items WHERE key = ?`
	sqlOld     = `SELECT key FROM items WHERE expires > 0 AND expires <= ? ORDER BY expires LIMIT ?`
)

var errClosed = fmt.Errorf("%w: store is closed", ErrUnavailable)

// start prepares the statements and the sweeper. On error the caller closes the databases.
func (s *sqliteStore) start(ctx context.Context) error {
	for _, p := range []struct {
		to  **sql.Stmt
		db  *sql.DB
		sql string
	}{
		{&s.stmt.get, s.read, sqlGet},
		{&s.stmt.list, s.read, sqlList},
		{&s.stmt.version, s.write, sqlVersion},
		{&s.stmt.next, s.write, sqlNext},
		{&s.stmt.put, s.write, sqlPut},
		{&s.stmt.del, s.write, sqlDelete},
		{&s.stmt.old, s.write, sqlOld},
	} {
		stmt, err := p.db.PrepareContext(ctx, p.sql)
		if err != nil {
			return s.failed(ctx, "prepare statements", err)
		}
		*p.to = stmt
	}
	s.turn = make(chan struct{}, 1)
	s.turn <- struct{}{}
	s.closed = make(chan struct{})
	s.sweeper.Go(s.sweepLoop)
	return nil
}

func (s *sqliteStore) Get(ctx context.Context, key string) (Item, error) {
	if err := checkKey(key); err != nil {
		return Item{}, err
	}
	item := Item{Key: key}
	var expires int64
	err := s.stmt.get.QueryRowContext(ctx, key, s.now().UnixNano()).Scan(&item.Value, &item.Version, &expires)
	if errors.Is(err, sql.ErrNoRows) {
		return Item{}, fmt.Errorf("get %q: %w", key, ErrNotFound)
	}
	if err != nil {
		return Item{}, s.failed(ctx, "get", err)
	}
	item.Expires = fromNano(expires)
	return item, nil
}

func (s *sqliteStore) List(ctx context.Context, prefix, after string, limit int) ([]Item, error) {
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	from := prefix
	if after >= prefix {
		from = after + "\x00" // the next possible key
	}
	// Keys are UTF-8, in which no byte is 0xff: this bound is above every key with the prefix.
	rows, err := s.stmt.list.QueryContext(ctx, from, prefix+"\xff", s.now().UnixNano(), limit)
	if err != nil {
		return nil, s.failed(ctx, "list", err)
	}
	defer rows.Close()
	var page []Item
	for size := 0; size < pageBytes && rows.Next(); {
		var item Item
		var expires int64
		if err := rows.Scan(&item.Key, &item.Value, &item.Version, &expires); err != nil {
			return nil, s.failed(ctx, "list", err)
		}
		item.Expires = fromNano(expires)
		page = append(page, item)
		size += len(item.Value)
	}
	if err := rows.Err(); err != nil {
		return nil, s.failed(ctx, "list", err)
	}
	return page, nil
}

func (s *sqliteStore) Swap(ctx context.Context, key string, version int64, value []byte, expires time.Time) (int64, error) {
	if err := checkItem(key, value); err != nil {
		return 0, err
	}
	var next Item
	err := s.update(ctx, "swap", func(ctx context.Context, tx *sql.Tx) ([]Change, error) {
		var err error
		next, err = s.put(ctx, tx, Write{Key: key, Version: version, Value: value, Expires: expires})
		return []Change{{Item: next}}, err
	})
	return next.Version, err
}

func (s *sqliteStore) SwapAll(ctx context.Context, writes []Write) ([]int64, error) {
	if err := checkBatch(writes); err != nil {
		return nil, err
	}
	versions := make([]int64, len(writes))
	err := s.update(ctx, "swap", func(ctx context.Context, tx *sql.Tx) ([]Change, error) {
		changes := make([]Change, 0, len(writes))
		for i, w := range writes {
			next, err := s.put(ctx, tx, w)
			if errors.Is(err, ErrConflict) {
				continue
			}
			if err != nil {
				return nil, err
			}
			versions[i] = next.Version
			changes = append(changes, Change{Item: next})
		}
		return changes, nil
	})
	if err != nil {
		return nil, err
	}
	return versions, nil
}

func (s *sqliteStore) Delete(ctx context.Context, key string, version int64) error {
	if err := checkKey(key); err != nil {
		return err
	}
	return s.update(ctx, "delete", func(ctx context.Context, tx *sql.Tx) ([]Change, error) {
		now, err := s.current(ctx, tx, key)
		switch {
		case err != nil:
			return nil, err
		case now == 0:
			return nil, fmt.Errorf("delete %q: %w", key, ErrNotFound)
		case version != -1 && now != version:
			return nil, fmt.Errorf("delete %q: %w: at version %d, not %d", key, ErrConflict, now, version)
		}
		last, err := s.advance(ctx, tx, 1)
		if err != nil {
			return nil, err
		}
		_, err = tx.StmtContext(ctx, s.stmt.del).ExecContext(ctx, key)
		return []Change{{Item: Item{Key: key, Version: last}, Deleted: true}}, err
	})
}

func (s *sqliteStore) Watch(ctx context.Context, prefix string) (<-chan Change, error) {
	return s.watch.add(ctx, prefix, 0)
}

func (s *sqliteStore) Close() error {
	var err error
	s.closing.Do(func() {
		close(s.closed)
		s.sweeper.Wait()
		<-s.turn // the last write has ended; the turn is not given back
		s.watch.close()
		err = s.closeDatabases()
	})
	return err
}

func (s *sqliteStore) closeDatabases() error {
	var errs []error
	if s.read != nil && s.read != s.write {
		errs = append(errs, s.read.Close())
	}
	if s.write != nil {
		errs = append(errs, s.write.Close()) // last, so that it empties the write-ahead log into the file
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Unlock())
	}
	return errors.Join(errs...)
}
