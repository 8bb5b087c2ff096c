package sink

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"iap/internal/audit"
)

const (
	maxRecords = 500       // of a batch
	maxBytes   = 512 << 10 // of a batch's lines: below what servers take without being told to (nginx: 1 MiB)
	pollEvery  = 500 * time.Millisecond
	sendWithin = 30 * time.Second // one try; a receiver that hangs is asked again

	firstPause   = 500 * time.Millisecond
	longestPause = time.Minute
	refusedPause = 15 * time.Second // of a receiver that says no: somebody has to mend something
	refusedLong  = 5 * time.Minute
	longestAsked = 15 * time.Minute // that a receiver may ask for
	tellEvery    = time.Hour        // a record of what was rejected is a record that may be rejected
)

// follower is one sink.
type follower struct {
	Options
	log    *slog.Logger
	name   string
	target target
	path   string // of the position

	// owned by run
	at       position
	reader   reader
	queue    []record // read, and not sent yet
	limit    int      // records of a batch; smaller after the receiver called one too large
	unsaved  bool     // the position could not be written, which was logged
	untold   uint64   // records rejected, and not recorded yet
	toldLast time.Time

	mu    sync.Mutex
	state State // guarded by mu
}

// run sends until ctx ends.
func (f *follower) run(ctx context.Context) {
	defer f.target.close()
	defer f.reader.close()
	for {
		if !f.fill(ctx) {
			return
		}
		next := f.queue[:f.batchLength()]
		if gap := next[0].seq - f.at.Sent - 1; gap > 0 {
			f.lost(ctx, f.at.Sent+1, gap)
			continue
		}
		sent, ok := f.deliver(ctx, next)
		if !ok {
			return
		}
		f.confirmed(f.queue[:sent])
		f.queue = f.queue[sent:]
	}
}

// fill waits until there is something to send.
func (f *follower) fill(ctx context.Context) bool {
	for len(f.queue) == 0 {
		var err error
		f.queue, err = f.reader.next(f.at.Sent, maxRecords, maxBytes)
		if err != nil {
			f.failed(err)
			f.reader.close() // it may be that the file is gone
		}
		if len(f.queue) == 0 && !sleep(ctx, f.Poll) {
			return false
		}
	}
	return ctx.Err() == nil
}

// batchLength is how many records of the queue go next: those that a relay which was killed had begun to send, or else as
// many as may, without a gap between them.
func (f *follower) batchLength() int {
	n := 1
	for n < min(len(f.queue), f.limit) && f.queue[n].seq == f.queue[n-1].seq+1 && f.queue[n-1].seq != f.at.Sending {
		n++
	}
	return n
}

// deliver sends a batch, or its first part if it is too large, as often as it takes; it returns how many records are done
// with, and false if ctx ended.
func (f *follower) deliver(ctx context.Context, records []record) (done int, ok bool) {
	for try := 0; ; {
		f.begun(records)
		got, err := f.try(ctx, records)
		if err == nil {
			f.recovered(got, records)
			f.rejected(ctx, uint64(got.rejected), got.message)
			f.limit = min(2*f.limit, maxRecords)
			return len(records), true
		}
		if ctx.Err() != nil {
			return 0, false
		}
		var no *refusal
		if errors.As(err, &no) && no.tooLarge() {
			if len(records) == 1 {
				f.rejected(ctx, 1, fmt.Sprintf("record %d is too large for the receiver", records[0].seq))
				return 1, true
			}
			f.limit = (len(records) + 1) / 2
			records = records[:f.limit]
			continue
		}
		f.failed(err)
		if !f.Sleep(ctx, pause(try, no)) {
			return 0, false
		}
		try++
	}
}

func (f *follower) try(ctx context.Context, records []record) (receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, f.Within)
	defer cancel()
	return f.target.send(ctx, batch{id: f.batchID(records), records: records})
}

// batchID is the same whenever the same records are sent, and another for others, even if they have the same numbers.
func (f *follower) batchID(records []record) string {
	h := sha256.New()
	h.Write([]byte(f.Origin + "\n"))
	for _, r := range records {
		h.Write(r.line)
		h.Write([]byte("\n"))
	}
	return fmt.Sprintf("iap_%s_%d_%d", hex.EncodeToString(h.Sum(nil)[:12]), records[0].seq, records[len(records)-1].seq)
}

// pause is how long to wait behind a try that failed: longer each time, not the same for all, and no shorter than the
// receiver asks.
func pause(try int, no *refusal) time.Duration {
	first, longest := firstPause, longestPause
	if no != nil && !no.passing() {
		first, longest = refusedPause, refusedLong
	}
	d := min(first<<min(try, 20), longest)
	d = d/2 + rand.N(d/2)
	if no != nil {
		d = max(d, min(no.after, longestAsked))
	}
	return d
}

// begun writes down what is being sent, so that after a kill the same batch goes out again.
func (f *follower) begun(records []record) {
	if last := records[len(records)-1].seq; f.at.Sending != last {
		f.at.Sending = last
		f.save()
	}
}

func (f *follower) confirmed(records []record) {
	last := records[len(records)-1]
	f.at.Sent, f.at.Hash, f.at.Sending = last.seq, hashOf(last.line), 0
	f.save()
}

// save writes the position. A disk that is full does not keep records from being sent: after a kill they are sent again.
func (f *follower) save() {
	err := f.at.save(f.path)
	if err != nil && !f.unsaved {
		f.log.Error("the position of an audit sink cannot be written: after a restart records are sent again", "error", err)
	}
	f.unsaved = err != nil
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state.Sent, f.state.Lost = f.at.Sent, f.at.Lost
}

// failed notes why nothing is sent; it is logged once.
func (f *follower) failed(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state.Failed++
	if f.state.Error == "" {
		f.state.Since = f.Now()
		f.log.Warn("an audit sink does not take records; they stay in the log and are sent later", "error", err)
	}
	f.state.Error = err.Error()
}

func (f *follower) recovered(got receipt, records []record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.Error != "" {
		f.log.Info("an audit sink takes records again", "after", f.Now().Sub(f.state.Since).Round(time.Second))
	}
	f.state.Error, f.state.Since = "", time.Time{}
	f.state.Count += uint64(len(records) - got.rejected)
}

// lost tells that records are gone which were never sent, and goes on behind them.
func (f *follower) lost(ctx context.Context, first, count uint64) {
	f.at.Lost += count
	f.log.Error("records were deleted before an audit sink could send them", "first", first, "count", count)
	f.tell(ctx, count, "records were deleted before they were sent", map[string]string{"first": strconv.FormatUint(first, 10)})
	f.at.Sent, f.at.Hash, f.at.Sending = first+count-1, "", 0
	f.save()
}

// rejected counts what the receiver does not want. It is recorded at most every hour, since that record may be rejected too.
func (f *follower) rejected(ctx context.Context, count uint64, message string) {
	if count == 0 {
		return
	}
	f.at.Lost += count
	f.untold += count
	f.log.Error("an audit sink's receiver has rejected records", "count", count, "message", message)
	if now := f.Now(); f.toldLast.IsZero() || now.Sub(f.toldLast) >= tellEvery {
		f.tell(ctx, f.untold, "the receiver has rejected records: "+message, nil)
		f.untold, f.toldLast = 0, now
	}
}

func (f *follower) tell(ctx context.Context, count uint64, message string, detail map[string]string) {
	e := audit.Event{Kind: audit.KindRelay, Reason: ReasonGap, Count: int64(count), Message: message, Detail: map[string]string{"sink": f.name}}
	for name, value := range detail {
		e.Detail[name] = value
	}
	if err := f.Record(ctx, e); err != nil {
		f.log.Error("record what an audit sink lost", "error", err)
	}
}

// sleep returns false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
