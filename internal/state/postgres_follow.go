package state

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// One statement, so that all of it is of one moment: what watchers have not heard of below their prefixes, and how far
// that leads.
const pgChanges = `SELECT s.version, s.trimmed, c.version, c.key, c.value, c.expires, c.deleted
FROM iap.store s LEFT JOIN LATERAL (
	SELECT * FROM iap.changes WHERE version > $1 AND key ^@ ANY ($2::text[]) ORDER BY version LIMIT $3
) c ON true ORDER BY c.version`

// follow tells watchers of what all relays write, until the store closes.
func (s *postgresStore) follow() {
	pause, told := pgRetry, false
	for {
		began := time.Now()
		err := s.listen()
		if s.isClosed() {
			return
		}
		if time.Since(began) > pgRetryMost { // it had been there
			pause, told = pgRetry, false
		}
		if !told {
			s.log.Error("the database is away: changes of other relays are not heard until it is back", "state", s.name, "error", explainPostgres(err))
			told = true
		}
		if !sleep(s.ctx, pause) {
			return
		}
		pause = min(2*pause, pgRetryMost)
	}
}

// listen follows the changes over one connection. What was missed since the last is in the table, for a while.
func (s *postgresStore) listen() error {
	ctx, cancel := context.WithTimeout(s.ctx, pgConnectWait)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	if _, err := conn.Exec(ctx, "LISTEN iap_state"); err != nil {
		return err
	}
	if err := s.compareClocks(ctx, conn); err != nil {
		return err
	}
	s.log.Info("following the changes of all relays", "state", s.name)
	for {
		if err := s.catchUp(conn); err != nil {
			return err
		}
		if !sleep(s.ctx, pgGather) {
			return nil
		}
		wait, cancel := context.WithTimeout(s.ctx, pgPoll)
		_, err := conn.WaitForNotification(wait)
		cancel()
		if s.ctx.Err() != nil {
			return nil
		}
		if err != nil && !pgconn.Timeout(err) && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}

// catchUp reads all changes that watchers have not heard of.
func (s *postgresStore) catchUp(conn *pgx.Conn) error {
	for more := true; more; {
		ctx, cancel := context.WithTimeout(s.ctx, pgReadWait)
		var err error
		more, err = s.nextChanges(ctx, conn)
		cancel()
		if err != nil {
			return err
		}
	}
	s.heardAt.Store(int64(time.Since(s.born)))
	return nil
}

// nextChanges reads one page and publishes it. more says that there are others.
func (s *postgresStore) nextChanges(ctx context.Context, conn *pgx.Conn) (more bool, err error) {
	s.mu.Lock()
	from, seen := s.position, s.seen
	s.mu.Unlock()
	prefixes, era := s.watch.prefixes()
	var last, trimmed int64
	var changes []Change
	rows, err := conn.Query(ctx, pgChanges, from, prefixes, pgChangesPage)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	for rows.Next() {
		var version, expires *int64
		var key *string
		var value []byte
		var deleted *bool
		if err := rows.Scan(&last, &trimmed, &version, &key, &value, &expires, &deleted); err != nil {
			return false, err
		}
		if version == nil {
			continue
		}
		c := Change{Item: Item{Key: *key, Version: *version}, Deleted: *deleted}
		if !c.Deleted {
			c.Item.Value, c.Item.Expires = value, fromNano(*expires)
		}
		changes = append(changes, c)
	}
	if err := rows.Err(); err != nil {
		return false, err
	}
	if last < seen {
		return false, &pgconn.PgError{Code: codeBehind, Message: fmt.Sprintf("version %d, but %d was seen", last, seen)}
	}
	return s.heard(from, last, trimmed, changes, era), nil
}

// heard publishes what was read, as far as it is news.
func (s *postgresStore) heard(from, last, trimmed int64, changes []Change, era int) (more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if trimmed > from {
		s.watch.resync()
		s.position = max(s.position, last)
		s.seen = max(s.seen, last)
		return false
	}
	if !s.watch.isEra(era) { // a watch was added that these may lack something for
		return true
	}
	more = len(changes) == pgChangesPage
	if more {
		last = changes[len(changes)-1].Item.Version
	}
	for len(changes) > 0 && changes[0].Item.Version <= s.position { // our own, told already
		changes = changes[1:]
	}
	s.watch.publish(changes)
	s.position = max(s.position, last)
	s.seen = max(s.seen, last)
	return more
}

// compareClocks warns of a relay whose clock is not the database's: expiry is by the relay's.
func (s *postgresStore) compareClocks(ctx context.Context, conn *pgx.Conn) error {
	var theirs int64
	if err := conn.QueryRow(ctx, "SELECT (extract(epoch FROM clock_timestamp()) * 1e9)::bigint").Scan(&theirs); err != nil {
		return err
	}
	if off := time.Duration(time.Now().UnixNano() - theirs); off.Abs() > pgClockWarning {
		s.log.Warn("this relay's clock is not the database's: set both by NTP", "relay_ahead_by", off.Round(time.Millisecond).String())
	}
	return nil
}

func (s *postgresStore) sweepLoop() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.closed:
			return
		case <-tick.C:
			if err := s.sweep(s.ctx); err != nil && !s.isClosed() {
				s.log.Warn("expired state could not be swept; it stays invisible and is tried again", "error", err)
			}
		}
	}
}

const (
	pgOld  = `SELECT key, version FROM iap.items WHERE expires > 0 AND expires <= $1 ORDER BY expires LIMIT $2`
	pgTrim = `WITH gone AS (DELETE FROM iap.changes WHERE at < now() - $1::interval RETURNING version),
done AS (DELETE FROM iap.writes WHERE at < now() - $1::interval)
UPDATE iap.store SET trimmed = greatest(trimmed, (SELECT max(version) FROM gone)) WHERE EXISTS (SELECT FROM gone)`
)

// sweep deletes what has expired long ago, a batch at a time, and changes that everybody has heard of.
func (s *postgresStore) sweep(ctx context.Context) error {
	for {
		var ops []operation
		err := s.read(ctx, "sweep", func(ctx context.Context) error {
			rows, err := s.pool.Query(ctx, pgOld, s.now().Add(-pgSweepGrace).UnixNano(), sweepBatch)
			if err != nil {
				return err
			}
			ops, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (o operation, err error) {
				o.op = opSweep
				return o, row.Scan(&o.Key, &o.Version)
			})
			return err
		})
		if err != nil {
			return err
		}
		if _, err := s.write(ctx, ops); err != nil {
			return err
		}
		if len(ops) < sweepBatch {
			break
		}
	}
	return s.read(ctx, "trim", func(ctx context.Context) error {
		_, err := s.pool.Exec(ctx, pgTrim, pgKeepChanges)
		return err
	})
}
