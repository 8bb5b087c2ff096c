package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"iap/internal/audit"
)

// ReasonGap is the reason of the relay event that tells what a sink never sent.
const ReasonGap = "sink_gap"

// Options are what all sinks of a relay share.
type Options struct {
	Dir       string                                    // the log's folder
	Positions string                                    // folder of the positions
	Origin    string                                    // the log's name: the relay's public name, "/audit/", the instance
	Version   string                                    // of the program
	Record    func(context.Context, audit.Event) error  // tells the log of a gap
	Now       func() time.Time                          // nil: time.Now
	Logger    *slog.Logger                              // nil: silent
	Poll      time.Duration                             // between two looks at the end of the log; 0: half a second
	Within    time.Duration                             // of one try; 0: half a minute
	Sleep     func(context.Context, time.Duration) bool // between two tries, false if ctx ended; nil: as long as is asked
}

// State is how a sink does.
type State struct {
	Name   string
	Type   string
	Target string
	Sent   uint64    // number of the last record that the receiver confirmed
	Behind uint64    // records that it has not confirmed
	Count  uint64    // records sent since the start
	Failed uint64    // tries that failed since the start
	Lost   uint64    // records that were never sent, ever
	Error  string    // why nothing is taken now; empty while all is well
	Since  time.Time // of Error
}

// Sinks are those of one relay.
type Sinks struct {
	dir     string
	all     []*follower
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// Start begins to send. The log is open already and nothing is written to it meanwhile, so that a sink that begins now
// misses nothing. An error is one of the configuration or of a position that cannot be read: a receiver that is away is
// none.
func Start(o Options, sinks []Config) (*Sinks, error) {
	o.setDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	s := &Sinks{dir: o.Dir, cancel: cancel}
	last, err := lastRecord(ctx, o.Dir)
	if err != nil {
		cancel()
		return nil, err
	}
	for _, c := range sinks {
		f, err := newFollower(o, c, last)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("audit sink %s: %w", c.Name, err)
		}
		s.all = append(s.all, f)
	}
	for _, f := range s.all {
		s.running.Go(func() { f.run(ctx) })
	}
	return s, nil
}

func (o *Options) setDefaults() {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Poll == 0 {
		o.Poll = pollEvery
	}
	if o.Within == 0 {
		o.Within = sendWithin
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
}

// Close ends what is being sent and waits for it. What was not confirmed is sent at the next start.
func (s *Sinks) Close() error {
	s.cancel()
	s.running.Wait()
	return nil
}

// States tells how each sink does, in the order of the configuration.
func (s *Sinks) States(ctx context.Context) []State {
	if len(s.all) == 0 {
		return nil
	}
	last, err := lastRecord(ctx, s.dir)
	states := make([]State, len(s.all))
	for i, f := range s.all {
		f.mu.Lock()
		states[i] = f.state
		f.mu.Unlock()
		if err == nil && last > states[i].Sent {
			states[i].Behind = last - states[i].Sent
		}
	}
	return states
}

// lastWithin bounds the look for the last record, which is at the end of the last file.
const lastWithin = 10 * time.Second

// lastRecord is the number of the log's last record; 0 if there is none.
func lastRecord(ctx context.Context, dir string) (uint64, error) {
	page, err := audit.Search(ctx, dir, audit.Query{}, audit.Bounds{Newest: true, Limit: 1, Bytes: audit.MaxLine, Within: lastWithin})
	if err != nil || len(page.Lines) == 0 {
		return 0, err
	}
	e, err := audit.Parse(page.Lines[0])
	return e.Seq, err
}

// newFollower makes a sink that begins where it left off, or where its configuration says.
func newFollower(o Options, c Config, last uint64) (*follower, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	target, err := open(o, c)
	if err != nil {
		return nil, err
	}
	f := &follower{
		Options: o, log: o.Logger.With("sink", c.Name), name: c.Name, target: target, limit: maxRecords,
		path: filepath.Join(o.Positions, c.Name+".json"), reader: reader{dir: o.Dir},
	}
	var known bool
	if f.at, known, err = loadPosition(f.path); err != nil {
		return nil, err
	}
	if known {
		err = f.checkPosition(last)
	} else {
		err = f.begin(c.From, last)
	}
	f.state = State{Name: c.Name, Type: c.Type, Target: c.Target(), Sent: f.at.Sent, Lost: f.at.Lost}
	return f, err
}

// begin sets the position of a new sink.
func (f *follower) begin(from string, last uint64) error {
	f.at = position{Sent: last}
	if from == FromStart {
		segments, err := audit.Segments(f.Dir)
		if err != nil {
			return err
		}
		f.at.Sent = 0
		if len(segments) > 0 {
			f.at.Sent = segments[0].First - 1
		}
	}
	f.log.Info("a new audit sink begins", "after", f.at.Sent)
	return f.at.save(f.path)
}

// checkPosition finds out whether the log still has the record that was sent last. If it has another in its place, the log
// was restored from a copy, or lost its end with the power: then what stands there was never sent.
func (f *follower) checkPosition(last uint64) error {
	segments, err := audit.Segments(f.Dir)
	if err != nil {
		return err
	}
	if f.at.Hash == "" && f.at.Sent <= last || len(segments) > 0 && segments[0].First > f.at.Sent {
		return nil
	}
	r := reader{dir: f.Dir}
	defer r.close()
	found, err := r.next(f.at.Sent-1, 1, audit.MaxLine)
	if err != nil || len(found) == 1 && found[0].seq == f.at.Sent && hashOf(found[0].line) == f.at.Hash {
		return err
	}
	back := uint64(0)
	for _, s := range segments {
		if s.First <= min(f.at.Sent, last) {
			back = s.First - 1
		}
	}
	f.log.Warn("the audit log is not the one that was sent: it was restored, or lost its end; the last segment is sent again", "sent", f.at.Sent, "again_after", back)
	f.at = position{Sent: back, Lost: f.at.Lost}
	return f.at.save(f.path)
}

// target is a receiver. Its methods are called by one goroutine.
type target interface {
	// send delivers a batch. Unless it returns an error the receiver has all of it, but for what the receipt says.
	send(context.Context, batch) (receipt, error)
	// probe finds out whether the receiver can be reached, and gives it no records.
	probe(context.Context) error
	close()
}

// batch is what is sent at once.
type batch struct {
	id      string // the same for the same records
	records []record
}

// receipt is what a receiver says that took a batch.
type receipt struct {
	rejected int // records it did not take and does not want again
	message  string
}

// open makes the receiver ready; it need not be there.
func open(o Options, c Config) (target, error) {
	switch c.Type {
	case OTLP:
		return openOTLP(o, c)
	case Syslog:
		return openSyslog(o, c)
	case Webhook:
		return openWebhook(o, c)
	}
	return nil, errors.New("unknown type")
}

// probeWithin bounds the wait for a receiver that does not answer: there may be several.
const probeWithin = 3 * time.Second

// Probe finds out whether a sink could begin, and whether its receiver can be reached now. It sends no records.
func Probe(ctx context.Context, c Config) (begins bool, err error) {
	var o Options
	o.setDefaults()
	if err := c.Validate(); err != nil {
		return false, err
	}
	t, err := open(o, c)
	if err != nil {
		return false, err
	}
	defer t.close()
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	return true, t.probe(ctx)
}
