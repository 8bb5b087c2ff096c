package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	pgConnections  = 5                      // of one relay, beside the one that listens: writes take turns, reads are short
	pgConnectWait  = 3 * time.Second        // for one server to answer
	pgReadWait     = 3 * time.Second        // for a read, also of a caller that would wait for ever
	pgRetry        = 50 * time.Millisecond  // before a second try; doubled up to the next
	pgRetryMost    = 250 * time.Millisecond // between tries: a revocation must be heard within a second of the database's return
	pgTries        = 4                      // of a call that never reached the server
	pgPoll         = 2 * time.Second        // the longest silence of the listening connection: then it is asked whether it lives
	pgGather       = 20 * time.Millisecond  // between two looks at the changes
	pgKeepChanges  = 10 * time.Minute       // a relay that was away for longer has its watchers list again
	pgSweepGrace   = time.Hour              // clocks of relays differ: what one holds for expired another may still need
	pgClockWarning = 5 * time.Second        // between the relay's clock and the database's
	pgChangesPage  = 500
	pgDeaf         = 15 * time.Second // without hearing of changes: then the store is away, also if it still answers
)

// postgresStore keeps items in a PostgreSQL database that relays share.
type postgresStore struct {
	name string // for messages: it holds no password
	now  func() time.Time
	log  *slog.Logger
	pool *pgxpool.Pool

	queue writeQueue
	watch watches

	mu       sync.Mutex
	position int64 // guarded by mu; watchers have heard of all versions up to this one
	seen     int64 // guarded by mu; the highest version known to be given

	heardAt atomic.Int64 // when all changes had been heard, by the time since born
	born    time.Time

	closed  chan struct{}
	closing sync.Once
	ctx     context.Context // of what runs beside the callers; ends with closed
	cancel  context.CancelFunc
	running sync.WaitGroup
}

const (
	pgGet  = `SELECT value, version, expires FROM iap.items WHERE key = $1 AND (expires = 0 OR expires > $2)`
	pgList = `SELECT key, value, version, expires FROM iap.items WHERE key >= $1 AND ($2 = '' OR key < $2) AND (expires = 0 OR expires > $3) ORDER BY key LIMIT $4`
)

// openPostgres connects, makes the layout if there is none, and follows the changes.
func openPostgres(ctx context.Context, url string, o Options) (Store, error) {
	config, err := postgresConfig(url, o.Logger)
	if err != nil {
		return nil, err
	}
	s := &postgresStore{name: postgresName(config.ConnConfig), now: o.Now, log: o.Logger, closed: make(chan struct{}), born: time.Now()}
	s.queue.turn = make(chan struct{}, 1)
	s.queue.turn <- struct{}{}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if s.pool, err = pgxpool.NewWithConfig(s.ctx, config); err != nil {
		s.cancel()
		return nil, fmt.Errorf("open state in %s: %w: %s", s.name, ErrUnavailable, explainPostgres(err))
	}
	wait, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if s.position, err = s.prepare(wait); err != nil {
		s.cancel()
		s.pool.Close()
		return nil, err
	}
	s.seen = s.position
	s.running.Go(s.follow)
	s.running.Go(s.sweepLoop)
	return s, nil
}

func (s *postgresStore) Get(ctx context.Context, key string) (Item, error) {
	if err := checkKey(key); err != nil {
		return Item{}, err
	}
	item := Item{Key: key}
	err := s.read(ctx, "get", func(ctx context.Context) error {
		var expires int64
		err := s.pool.QueryRow(ctx, pgGet, key, s.now().UnixNano()).Scan(&item.Value, &item.Version, &expires)
		item.Expires = fromNano(expires)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return Item{}, fmt.Errorf("get %q: %w", key, ErrNotFound)
	}
	if err != nil {
		return Item{}, err
	}
	return item, nil
}

func (s *postgresStore) List(ctx context.Context, prefix, after string, limit int) ([]Item, error) {
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	from := prefix
	if after >= prefix {
		from = after + "\x01" // no key has a control character, and PostgreSQL no text with the smallest
	}
	var page []Item
	err := s.read(ctx, "list", func(ctx context.Context) error {
		page = nil
		rows, err := s.pool.Query(ctx, pgList, from, above(prefix), s.now().UnixNano(), limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for size := 0; size < pageBytes && rows.Next(); {
			var item Item
			var expires int64
			if err := rows.Scan(&item.Key, &item.Value, &item.Version, &expires); err != nil {
				return err
			}
			item.Expires = fromNano(expires)
			page = append(page, item)
			size += len(item.Value)
		}
		rows.Close()
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}

// above returns the least text that is greater than all that begin with prefix, "" if there is none.
func above(prefix string) string {
	const (
		last          = '\U0010ffff'
		lowSurrogate  = 0xd800 // no text has these
		highSurrogate = 0xdfff
	)
	runes := []rune(prefix)
	for len(runes) > 0 {
		end := len(runes) - 1
		if runes[end] < last {
			runes[end]++
			if runes[end] >= lowSurrogate && runes[end] <= highSurrogate {
				runes[end] = highSurrogate + 1
			}
			return string(runes)
		}
		runes = runes[:end]
	}
	return ""
}

// read does f, again while the connection it was given turns out to be dead.
func (s *postgresStore) read(ctx context.Context, op string, f func(context.Context) error) error {
	wait, cancel := context.WithTimeout(ctx, pgReadWait)
	defer cancel()
	for try := 1; ; try++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.deaf(op); err != nil {
			return err
		}
		err := f(wait)
		switch {
		case err == nil, errors.Is(err, pgx.ErrNoRows):
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("%s in %s: %w", op, s.name, ctx.Err())
		case s.isClosed():
			return errClosed
		case try == pgTries || wait.Err() != nil || !transient(err):
			return fmt.Errorf("%s in %s: %w: %s", op, s.name, ErrUnavailable, explainPostgres(err))
		}
	}
}

func (s *postgresStore) Watch(ctx context.Context, prefix string) (<-chan Change, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watch.add(ctx, prefix, s.seen)
}

// deaf refuses to go on with a database that is read and written while nothing is heard of what other relays do there:
// their revocations would not be known.
func (s *postgresStore) deaf(op string) error {
	if since := time.Since(s.born) - time.Duration(s.heardAt.Load()); since > pgDeaf && !s.isClosed() {
		return fmt.Errorf("%s in %s: %w: no change was heard of for %s", op, s.name, ErrUnavailable, since.Round(time.Second))
	}
	return nil
}

func (s *postgresStore) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

func (s *postgresStore) Close() error {
	s.closing.Do(func() {
		close(s.closed)
		<-s.queue.turn // the last write has ended; the turn is not given back
		s.cancel()
		s.running.Wait()
		s.watch.close()
		s.pool.Close()
	})
	return nil
}
