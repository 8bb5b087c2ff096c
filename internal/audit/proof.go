package audit

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"iap/internal/audit/checkpoint"
	"iap/internal/audit/tree"
)

const (
	checkpointEvery = 10 * time.Second // what is younger rests on its numbers alone
	expireEvery     = time.Hour        // between two looks for segments that have expired
)

// Keys tells the relay's key in force and the statements (internal/relaykey) that led to it.
type Keys func() (key ed25519.PrivateKey, chain [][]byte, err error)

// ErrTree says that the log on the disk is not the one that its last checkpoint speaks of.
var ErrTree = errors.New("the audit log on the disk is not the one that its last checkpoint was signed for: keep the folder as it is, have it examined (iapctl audit verify), and start the relay with an empty one")

// prover keeps the tree over the lines and has its root signed. It reads what was written from the files: no record
// waits for it, and whatever it fails at stops no traffic. One goroutine works; others ask.
type prover struct {
	l      *Log
	origin string
	keys   Keys
	retain time.Duration
	nudged chan struct{} // a segment was begun
	stop   chan struct{}
	done   sync.WaitGroup

	mu     sync.Mutex
	latest *checkpoint.Signed // guarded by mu; nil: none yet
	news   chan struct{}      // guarded by mu; closed and replaced when latest changes
	fault  error              // guarded by mu: why there are no new checkpoints
	store  *tree.Store        // guarded by mu

	tree  *tree.Range // as this and all below: owned by the goroutine, nil before the tree is taken up
	place place
	long  bool        // many segments are being read
	made  []tree.Hash // reused, as data is
	data  []byte
	known checkpoint.KeyFile
}

func newProver(l *Log, o Options) (*prover, error) {
	if o.Keys == nil {
		if o.Retain != 0 {
			return nil, errors.New("open audit log: retention needs a key that signs what has expired")
		}
		return nil, nil
	}
	if !checkpoint.ValidOrigin(o.Origin) {
		return nil, fmt.Errorf("open audit log: %q cannot be the name of a log", o.Origin)
	}
	return &prover{
		l: l, origin: o.Origin, keys: o.Keys, retain: o.Retain,
		nudged: make(chan struct{}, 1), stop: make(chan struct{}), news: make(chan struct{}), store: tree.NewStore(new(tree.Range)),
	}, nil
}

// nudge asks for a checkpoint soon. It never blocks.
func (p *prover) nudge() {
	if p == nil {
		return
	}
	select {
	case p.nudged <- struct{}{}:
	default:
	}
}

// join ends the goroutine.
func (p *prover) join() {
	if p == nil {
		return
	}
	close(p.stop)
	p.done.Wait()
}

// last signs what was written last, once nothing is written any more and the goroutine has ended.
func (p *prover) last() {
	if p != nil {
		p.work()
	}
}

func (p *prover) run() {
	tick, expire := time.NewTicker(checkpointEvery), time.NewTicker(expireEvery)
	defer tick.Stop()
	defer expire.Stop()
	p.work()
	p.noteFault(p.expire())
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
			p.work()
		case <-p.nudged:
			p.work()
		case <-expire.C:
			p.noteFault(p.expire())
		}
	}
}

// work brings the tree up to what is written and has it signed if that is more than before.
func (p *prover) work() {
	p.noteFault(p.step())
}

func (p *prover) step() error {
	if p.tree == nil {
		if err := p.takeUp(); err != nil {
			p.tree = nil
			return err
		}
	}
	if err := p.advance(); err != nil {
		return err
	}
	return p.sign()
}

// noteFault keeps why there are no checkpoints, and says it once.
func (p *prover) noteFault(err error) {
	if errors.Is(err, errInterrupted) || errors.Is(err, errClosed) {
		return
	}
	p.mu.Lock()
	before := p.fault
	p.fault = err
	p.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		p.l.log.Error("the audit log gets no checkpoints: records are taken, and are not proven until this is mended", "dir", p.l.dir, "error", err)
		if errors.Is(err, ErrTree) {
			p.report(ReasonTreeMismatch, "the log on the disk is not the one that its last checkpoint was signed for", nil)
		}
	case err == nil && before != nil:
		p.l.log.Info("the audit log gets checkpoints again", "dir", p.l.dir)
	}
}

func (p *prover) report(reason, message string, detail map[string]string) {
	if err := p.l.record(&Event{Kind: KindRelay, Reason: reason, Message: message, Detail: detail}, true); err != nil {
		p.l.log.Error("record what happened to the audit log", "reason", reason, "error", err)
	}
}

// sign signs the tree unless the last checkpoint says the same.
func (p *prover) sign() error {
	size := p.tree.Size()
	if size == 0 {
		return nil
	}
	key, chain, err := p.keys()
	if err != nil {
		return fmt.Errorf("the relay's key: %w", err)
	}
	p.mu.Lock()
	latest := p.latest
	p.mu.Unlock()
	c := checkpoint.Checkpoint{Origin: p.origin, Size: size, Root: p.tree.Root(), Time: p.l.now()}
	if latest != nil {
		if latest.Size == size && latest.Key.Equal(key.Public()) {
			return nil
		}
		if !c.Time.After(latest.Time) { // the clock was set back: later stays later
			c.Time = latest.Time.Add(time.Millisecond)
		}
	}
	if err := p.keepKeys(key.Public().(ed25519.PublicKey), chain); err != nil {
		return err
	}
	signed, err := checkpoint.Sign(c, key)
	if err != nil {
		return err
	}
	if err := appendWhole(filepath.Join(p.l.dir, p.place.segment.name+CheckpointSuffix), EncodeCheckpoint(signed.Note)); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latest = &signed
	close(p.news)
	p.news = make(chan struct{})
	return nil
}

// appendWhole adds to a file wholly or not at all, and returns when it is on the disk.
func appendWhole(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(data, info.Size()); err != nil {
		return errors.Join(err, f.Truncate(info.Size()))
	}
	return f.Sync()
}

// Proving returns nil if the log gets checkpoints, or why not. That stops nothing: what was signed stays proven, and the
// rest is signed later.
func (l *Log) Proving() error {
	if l.proof == nil {
		return nil
	}
	l.proof.mu.Lock()
	defer l.proof.mu.Unlock()
	return l.proof.fault
}

// SignSoon asks for a checkpoint of what is written now, before the next one is due.
func (l *Log) SignSoon() { l.proof.nudge() }

// Checkpoint returns the latest checkpoint, ok if there is one, and a channel that is closed when there is a newer one.
func (l *Log) Checkpoint() (c checkpoint.Signed, ok bool, news <-chan struct{}) {
	if l.proof == nil {
		return c, false, nil
	}
	l.proof.mu.Lock()
	defer l.proof.mu.Unlock()
	if l.proof.latest != nil {
		c, ok = *l.proof.latest, true
	}
	return c, ok, l.proof.news
}

// ProveExtends proves that the tree of the first size lines begins with that of the first before.
func (l *Log) ProveExtends(size, before int64) ([]tree.Hash, error) {
	if l.proof == nil {
		return nil, tree.ErrNoHashes
	}
	l.proof.mu.Lock()
	defer l.proof.mu.Unlock()
	return l.proof.store.ProveExtends(size, before)
}
