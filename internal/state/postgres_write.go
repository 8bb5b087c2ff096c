package state

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// What a write does; postgres.sql knows the numbers.
const (
	opPut    = 0
	opDelete = 1
	opSweep  = 2 // delete, expired or not
)

// What iap.write answers in place of a version.
const (
	answerConflict = 0
	answerNone     = -1
)

// gatherBytes bounds what writes of several callers are joined to one commit.
const gatherBytes = 4 << 20

const pgWrite = `SELECT iap.write($1, $2, $3, $4, $5, $6, $7, $8)`

// operation is one write.
type operation struct {
	Write
	op int16
}

// job is what one caller wants written, in one commit.
type job struct {
	ops     []operation
	size    int
	done    chan struct{} // closed when versions or err is there
	answers []int64       // for each of ops
	err     error
}

// writeQueue joins what callers want written while a commit is under way into the next: the counter of versions makes
// commits of all relays follow each other, so that each should carry what there is.
type writeQueue struct {
	turn chan struct{} // holds one value while nobody writes

	mu      sync.Mutex
	waiting []*job // guarded by mu; in the order of their coming
}

func (q *writeQueue) add(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, j)
}

// leave takes j out, unless its turn has come.
func (q *writeQueue) leave(j *job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.waiting, j)
	if i < 0 {
		return false
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	return true
}

// take returns the jobs of the next commit, at least one if any waits.
func (q *writeQueue) take() []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, ops, size := 0, 0, 0
	for _, j := range q.waiting {
		if n > 0 && (ops+len(j.ops) > MaxBatch || size+j.size > gatherBytes) {
			break
		}
		n, ops, size = n+1, ops+len(j.ops), size+j.size
	}
	jobs := slices.Clone(q.waiting[:n])
	q.waiting = slices.Delete(q.waiting, 0, n)
	return jobs
}

func (s *postgresStore) Swap(ctx context.Context, key string, version int64, value []byte, expires time.Time) (int64, error) {
	if err := checkItem(key, value); err != nil {
		return 0, err
	}
	answers, err := s.write(ctx, []operation{{Write{Key: key, Version: version, Value: value, Expires: expires}, opPut}})
	switch {
	case err != nil:
		return 0, err
	case answers[0] == answerConflict:
		return 0, fmt.Errorf("swap %q: %w: not at version %d", key, ErrConflict, version)
	}
	return answers[0], nil
}

func (s *postgresStore) SwapAll(ctx context.Context, writes []Write) ([]int64, error) {
	if err := checkBatch(writes); err != nil {
		return nil, err
	}
	ops := make([]operation, len(writes))
	for i, w := range writes {
		ops[i] = operation{w, opPut}
	}
	return s.write(ctx, ops)
}

func (s *postgresStore) Delete(ctx context.Context, key string, version int64) error {
	if err := checkKey(key); err != nil {
		return err
	}
	answers, err := s.write(ctx, []operation{{Write{Key: key, Version: version}, opDelete}})
	switch {
	case err != nil:
		return err
	case answers[0] == answerNone:
		return fmt.Errorf("delete %q: %w", key, ErrNotFound)
	case answers[0] == answerConflict:
		return fmt.Errorf("delete %q: %w: not at version %d", key, ErrConflict, version)
	}
	return nil
}

// write does ops in one commit and returns the answer to each. The caller's context ends the wait for the turn; after that
// the commit has a deadline of its own. Whoever has the turn writes for all who wait, until its own is done.
func (s *postgresStore) write(ctx context.Context, ops []operation) ([]int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.isClosed() {
		return nil, errClosed
	}
	if len(ops) == 0 {
		return []int64{}, nil
	}
	if err := s.deaf("write"); err != nil {
		return nil, err
	}
	j := &job{ops: slices.Clone(ops), done: make(chan struct{})}
	for i := range j.ops {
		// Not nil, which SQL knows as NULL; and the caller's again once we have returned, which a watcher's is not.
		j.ops[i].Value = append([]byte{}, j.ops[i].Value...)
		j.size += len(j.ops[i].Value)
	}
	s.queue.add(j)
	select {
	case <-s.queue.turn:
		for !j.isDone() {
			s.commit(ctx, s.queue.take())
		}
		s.queue.turn <- struct{}{}
	case <-j.done:
	case <-s.closed:
		if s.queue.leave(j) {
			return nil, errClosed
		}
		<-j.done
	case <-ctx.Done():
		if s.queue.leave(j) {
			return nil, ctx.Err()
		}
		<-j.done
	}
	return j.answers, j.err
}

func (j *job) isDone() bool {
	select {
	case <-j.done:
		return true
	default:
		return false
	}
}

// commit writes the jobs and tells watchers. The turn is held.
func (s *postgresStore) commit(ctx context.Context, jobs []*job) {
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	var ops []operation
	for _, j := range jobs {
		ops = append(ops, j.ops...)
	}
	answers, err := s.send(own, ops)
	if err == nil {
		s.committed(ops, answers)
		answers = answers[1:]
	}
	for _, j := range jobs {
		if err != nil {
			j.err = err
		} else {
			j.answers, answers = answers[:len(j.ops):len(j.ops)], answers[len(j.ops):]
		}
		close(j.done)
	}
}

// send has the database do ops and returns what iap.write does. An answer that was lost is asked for again, under the
// same number, which has the database do the batch once whatever becomes of the first try.
func (s *postgresStore) send(ctx context.Context, ops []operation) ([]int64, error) {
	var number [16]byte
	_, _ = rand.Read(number[:]) // never fails
	args := columns(ops)
	doubt := false
	for try, pause := 1, pgRetry; ; try, pause = try+1, min(2*pause, pgRetryMost) {
		s.mu.Lock()
		floor := s.seen
		s.mu.Unlock()
		var answers []int64
		once, cancel := context.WithTimeout(ctx, pgReadWait)
		row := s.pool.QueryRow(once, pgWrite, number, floor, s.now().UnixNano(), args.keys, args.versions, args.values, args.expires, args.ops)
		err := row.Scan(&answers)
		slow := once.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil && len(answers) != len(ops)+1 {
			err = fmt.Errorf("%d answers to %d writes", len(answers), len(ops))
		}
		if err == nil {
			return answers, nil
		}
		if isCode(err, codeReadOnly) {
			s.pool.Reset() // the server has become a standby: no connection to it is of use
		}
		doubt = doubt || !unsent(err)
		if !slow && !transient(err) || !doubt && try == pgTries || !sleep(ctx, pause) {
			return nil, fmt.Errorf("write in %s: %w: %s", s.name, ErrUnavailable, explainPostgres(err))
		}
	}
}

// unsent reports that the server cannot have done what was asked of it.
func unsent(err error) bool {
	var refused *pgconn.PgError
	var unconnected *pgconn.ConnectError
	return errors.As(err, &refused) || errors.As(err, &unconnected) || pgconn.SafeToRetry(err)
}

// opColumns are operations as the arrays that iap.write takes.
type opColumns struct {
	keys     []string
	versions []int64
	values   [][]byte
	expires  []int64
	ops      []int16
}

func columns(ops []operation) opColumns {
	var c opColumns
	for _, o := range ops {
		c.keys = append(c.keys, o.Key)
		c.versions = append(c.versions, o.Version)
		c.values = append(c.values, o.Value)
		c.expires = append(c.expires, toNano(o.Expires))
		c.ops = append(c.ops, o.op)
	}
	return c
}

// committed tells watchers of our own writes, unless another relay's came between: then follow brings both, in order.
func (s *postgresStore) committed(ops []operation, answers []int64) {
	before, changes := answers[0], []Change{}
	for i, version := range answers[1:] {
		if version <= 0 {
			continue
		}
		o := ops[i]
		c := Change{Item: Item{Key: o.Key, Version: version}, Deleted: o.op != opPut}
		if o.op == opPut {
			c.Item.Value, c.Item.Expires = o.Value, o.Expires
		}
		changes = append(changes, c)
	}
	if len(changes) == 0 {
		return
	}
	last := changes[len(changes)-1].Item.Version
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = max(s.seen, last)
	if s.position == before {
		s.watch.publish(changes)
		s.position = last
	}
}

// sleep waits, and reports whether there is still time.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
