package guard

import "time"

const (
	// readerStall is how long, in all, writing an answer may wait for its reader beside what readerRate grants it. Until it
	// has read, a slot at the model server is taken, and tokens are reserved of budgets that others share.
	readerStall = 2 * time.Minute
	// readerRate is how fast, in bytes per second, an answer must be read in the long run.
	readerRate = 1 << 10
)

// readerWatch ends an exchange whose caller does not read. It is for one goroutine. A nil one has all the time.
type readerWatch struct {
	x      *exchange
	timer  *time.Timer   // runs while something is being written
	waited time.Duration // in writes, so far
	from   time.Time
}

func (x *exchange) watchReader() *readerWatch {
	w := &readerWatch{x: x}
	w.timer = time.AfterFunc(readerStall, func() {
		x.cancel(&Ended{Code: "reader_stalled", Message: "the answer was not read"})
	})
	w.timer.Stop()
	return w
}

// begin is called before something is written, end after.
func (w *readerWatch) begin() {
	if w == nil {
		return
	}
	w.from = time.Now()
	left := readerStall - w.waited + time.Duration(w.x.sent)*time.Second/readerRate
	w.timer.Reset(max(left, 0))
}

func (w *readerWatch) end() {
	if w == nil {
		return
	}
	w.timer.Stop()
	w.waited += time.Since(w.from)
}
