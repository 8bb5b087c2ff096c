package audit

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

// Sizes and limits.
const (
	// MaxLine is the longest line a reader accepts. The bounds below keep every record under it.
	MaxLine = 32 << 10

	shortText  = 512     // bytes of an encoded name or id: an issuer's alias and a subject of 255 fit, escaped or not
	longText   = 2 << 10 // bytes of an encoded path or message
	factsText  = 8 << 10 // bytes of what is known of a principal: some two hundred groups
	detailName = 64      // bytes of the encoded name of a detail
	maxDetails = 16      // details of one event

	defaultSegment = 64 << 20 // read in under a second at a restart; a few hundred thousand records
	defaultReserve = 4 << 20  // ten thousand outcomes
	rotateRetry    = 16       // a failed rotation is tried again after this part of a segment

	schemaVersion = 1
)

// Values of Options.Sync.
const (
	SyncWrite = "write" // a record is safe once it is written: against kill -9, not against a power cut
	SyncGroup = "group" // a record is safe once it is on the disk; records that wait together share one sync
)

// ErrUnavailable says that the log could not take a record. Whatever the record was about must not happen.
var ErrUnavailable = errors.New("audit log is unavailable")

// Options configure a log.
type Options struct {
	Dir          string           // made with mode 0700; used by one process at a time
	Sync         string           // SyncWrite (default) or SyncGroup
	SegmentBytes int64            // a segment that has grown by this is followed by a new one; 0: 64 MiB
	SegmentAge   time.Duration    // a segment that was begun so long ago is followed by a new one; 0: never
	Retain       time.Duration    // segments are deleted when all they hold is older; 0: never; needs Keys
	Origin       string           // the log's name in its checkpoints: the relay's public name, "/audit/", the instance
	Keys         Keys             // signs checkpoints; nil: there are none
	ReserveBytes int64            // disk space held back for outcomes, kills and revocations; 0: 4 MiB, negative: none
	Now          func() time.Time // nil: time.Now
	Logger       *slog.Logger     // nil: silent
}

// Log is an open audit log. Its methods may be called concurrently.
type Log struct {
	dir          string
	durable      bool // SyncGroup
	segmentBytes int64
	segmentAge   time.Duration
	now          func() time.Time
	log          *slog.Logger
	openFile     func(path string, flags int) (file, error)

	lock     *flock.Flock
	started  time.Time
	lines    sync.Pool     // of *line
	syncTurn chan struct{} // holds a value while somebody syncs a batch
	denials  denials
	proof    *prover       // nil: no checkpoints
	stop     chan struct{} // closed by Close; ends the goroutine in working
	closing  sync.Once
	working  sync.WaitGroup

	mu       sync.Mutex // guards all below
	segment  *segment
	size     int64     // bytes of whole records in segment
	rotateAt int64     // size from which a new segment is begun
	ages     time.Time // when the segment is old enough for a new one; zero: never
	dirty    bool      // there may be bytes behind size
	seq      uint64
	mono     int64
	batch    *batch                  // of the records written since the last sync began
	open     map[string]openDecision // by request
	lost     map[string]openDecision // left open by the last run and not ended yet
	notes    []Event                 // what was found in the last run's files and is not written yet
	reserve  reserve
	fault    error // why decisions are refused, or nil
	refused  int64 // records refused since fault was set
	closed   bool
}

// Open opens the log in o.Dir or begins one, continues its numbering, sets an unfinished last line aside and ends the
// decisions that the last run left open with the outcome relay_lost. A disk that is full does not keep a log from being
// opened: kills must work. See Healthy.
func Open(o Options) (*Log, error) { return openLog(o, openSegment) }

func openLog(o Options, openFile func(string, int) (file, error)) (*Log, error) {
	l, err := newLog(o)
	if err != nil {
		return nil, err
	}
	l.openFile = openFile
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	l.lock = flock.New(filepath.Join(l.dir, "lock"), flock.SetPermissions(0o600))
	switch locked, err := l.lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("open audit log: lock %s: %w", l.dir, err)
	case !locked:
		return nil, fmt.Errorf("open audit log: %s is in use by another process", l.dir)
	}
	if err := l.recover(); err != nil {
		return nil, errors.Join(err, l.release())
	}
	l.working.Go(l.flushDenials)
	if l.proof != nil {
		l.proof.done.Go(l.proof.run)
	}
	return l, nil
}

func newLog(o Options) (*Log, error) {
	l := &Log{dir: o.Dir, durable: o.Sync == SyncGroup, segmentBytes: o.SegmentBytes, segmentAge: o.SegmentAge, now: o.Now, log: o.Logger}
	switch {
	case o.Dir == "":
		return nil, errors.New("open audit log: no directory given")
	case o.Sync != "" && o.Sync != SyncWrite && o.Sync != SyncGroup:
		return nil, fmt.Errorf("open audit log: sync is %q, want %s or %s", o.Sync, SyncWrite, SyncGroup)
	case o.SegmentBytes < 0 || o.SegmentAge < 0 || o.Retain < 0:
		return nil, errors.New("open audit log: the size or age of segments or the retention is negative")
	}
	if l.segmentBytes == 0 {
		l.segmentBytes = defaultSegment
	}
	if l.now == nil {
		l.now = time.Now
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = defaultReserve
	}
	l.reserve = reserve{path: filepath.Join(l.dir, "reserve"), want: max(o.ReserveBytes, 0)}
	l.started = l.now()
	l.lines.New = func() any { return new(line) }
	l.syncTurn = make(chan struct{}, 1)
	l.stop = make(chan struct{})
	l.batch = newBatch()
	l.open = make(map[string]openDecision)
	var err error
	l.proof, err = newProver(l, o)
	return l, err
}

// Healthy returns nil if the log takes decisions. If it did not lately, it is tried now: a relay that is taken out of
// rotation because of a full disk comes back by itself when there is space.
func (l *Log) Healthy() error {
	b, err := l.tryAgain()
	if b == nil || err != nil {
		return err
	}
	if err := l.commit(b); err != nil {
		return l.unsynced(err)
	}
	return nil
}

// tryAgain heals a faulty log and returns what to wait for until that is durable, nil if there is nothing to wait for.
func (l *Log) tryAgain() (*batch, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, errClosed
	case l.fault == nil:
		return nil, nil
	}
	err := l.heal()
	if !l.durable {
		return nil, err
	}
	return l.batch, err
}

// Close writes the counted denials, syncs the file, signs a last checkpoint and releases the directory. Records fail from then on.
func (l *Log) Close() error {
	var err error
	l.closing.Do(func() {
		close(l.stop)
		l.working.Wait()
		l.countDenials(true)
		l.proof.join()
		l.mu.Lock()
		l.closed = true
		l.endSegment(true)
		l.mu.Unlock()
		l.proof.last()
		err = l.release()
	})
	return err
}

// release gives up what Open took, as far as it got.
func (l *Log) release() error {
	err := l.reserve.close()
	if l.segment != nil && !l.closed {
		_, closed := l.segment.end(false)
		err = errors.Join(err, closed)
	}
	return errors.Join(err, l.lock.Unlock())
}
