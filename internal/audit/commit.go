package audit

import (
	"sync"
	"sync/atomic"
)

// batch is the records that share one sync: all that were written to a segment since the last sync began.
type batch struct {
	done chan struct{} // closed when err is set
	err  error
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

func (b *batch) finish(err error) {
	b.err = err
	close(b.done)
}

// commit returns once b is on the disk, or may not be. Of the records that wait, one at a time syncs for all that were
// written by then; the others wait for it or for the next.
func (l *Log) commit(b *batch) error {
	for {
		select {
		case <-b.done:
			return b.err
		case l.syncTurn <- struct{}{}:
			l.syncBatch(b)
			<-l.syncTurn
		}
	}
}

// syncBatch syncs the batch that is being filled, which is b unless b was finished meanwhile. The holder of the turn
// calls it.
func (l *Log) syncBatch(b *batch) {
	select {
	case <-b.done:
		return
	default:
	}
	l.mu.Lock()
	full, s := l.batch, l.segment
	l.batch = newBatch()
	l.mu.Unlock()
	full.finish(s.sync())
}

// segment is the file being written. Its syncs take turns and the first failure stays: the system may have dropped the
// pages it could not write, and would report success the next time.
type segment struct {
	file
	first uint64      // number of its first record
	worn  atomic.Bool // a sync failed

	mu    sync.Mutex
	ended bool  // guarded by mu
	err   error // guarded by mu: of the first sync that failed
}

func (s *segment) sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.syncLocked()
}

func (s *segment) syncLocked() error {
	if s.ended || s.err != nil {
		return s.err
	}
	if s.err = s.Sync(); s.err != nil {
		s.worn.Store(true)
	}
	return s.err
}

// flush puts what was written on the disk. A failure is the caller's alone: nobody waits for it.
func (s *segment) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.err != nil {
		return s.err
	}
	return s.Sync()
}

// end closes the file, synced if it is to be durable, and returns what the records that were not synced before get.
func (s *segment) end(durable bool) (synced, closed error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if durable {
		synced = s.syncLocked()
	}
	s.ended = true
	return synced, s.Close()
}
