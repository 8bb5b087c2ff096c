package tunnel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// A controlMessage is one message of the control stream. Which fields a type uses stands in the package's
// documentation; the rest stay empty.
type controlMessage struct {
	Type      string         `json:"type"`
	ID        uint64         `json:"id,omitzero"`
	Code      string         `json:"code,omitzero"`
	Text      string         `json:"text,omitzero"`
	Kind      string         `json:"kind,omitzero"`
	Token     string         `json:"token,omitzero"`
	Signature []byte         `json:"signature,omitzero"`
	Expires   time.Time      `json:"expires,omitzero"`
	Resources []Announcement `json:"resources,omitempty"`
	Loads     []Load         `json:"loads,omitempty"`
	Key       []byte         `json:"key,omitzero"`
	Proof     []byte         `json:"proof,omitzero"`
	Chain     [][]byte       `json:"chain,omitempty"`
}

// The types of control messages.
const (
	msgRefresh    = "refresh"
	msgRefreshed  = "refreshed"
	msgAnnounce   = "announce"
	msgAnnounced  = "announced"
	msgRotate     = "rotate"
	msgRotated    = "rotated"
	msgRenewKey   = "renew_key"
	msgKeyRenewed = "key_renewed"
	msgRelayKeys  = "relay_keys"
	msgCheckpoint = "checkpoint"
	msgWitnessed  = "witnessed"
	msgGoAway     = "goaway"
	msgPing       = "ping"
	msgPong       = "pong"
	msgNotice     = "notice"
	msgReason     = "reason"
	msgWithdraw   = "withdraw"
	msgLoad       = "load"
)

// A controlStream is the first stream of a session. Its reader and the session's loop, which writes, are its only users.
type controlStream struct {
	mux    *yamux.Stream // set before ready is closed
	ready  chan struct{}
	ended  chan struct{} // closed when the reader has returned
	queue  chan controlMessage
	nudged chan struct{}

	mu      sync.Mutex
	lastID  uint64                         // guarded by mu
	waiting map[uint64]chan controlMessage // requests without an answer yet; guarded by mu
	jobs    []func()                       // callbacks to run, one after the other; guarded by mu
	working bool                           // a goroutine runs jobs; guarded by mu
	workers sync.WaitGroup
	rate    bucket // owned by the reader
}

// jobsMost bounds the callbacks that a peer can queue up.
const jobsMost = 8

var (
	errQueueFull = errors.New("control stream is congested")
	errFlood     = violation("flood of control messages")
)

func (c *controlStream) init() {
	c.ready, c.ended = make(chan struct{}), make(chan struct{})
	c.queue, c.nudged = make(chan controlMessage, controlQueue), make(chan struct{}, 1)
	c.waiting = make(map[uint64]chan controlMessage)
	c.rate = bucket{burst: controlBurst, perSecond: controlPerSecond}
}

func (c *controlStream) nudge() {
	select {
	case c.nudged <- struct{}{}:
	default:
	}
}

// send queues m. It never blocks.
func (c *controlStream) send(m controlMessage) error {
	select {
	case c.queue <- m:
		return nil
	default:
		return errQueueFull
	}
}

// write puts m on the stream; the session's loop is the only caller.
func (c *controlStream) write(m controlMessage, patience time.Duration) error {
	b, err := appendMessage(nil, m, controlBytes)
	if err != nil {
		return err
	}
	c.mux.SetWriteDeadline(time.Now().Add(patience)) // it never fails
	for len(b) > 0 {
		n, err := c.mux.Write(b[:min(len(b), frameBytes)])
		if err != nil {
			return fmt.Errorf("write control message: %w", err)
		}
		b = b[n:]
	}
	return nil
}

// ask sends m with a number of its own and waits for the answer.
func (s *Session) ask(ctx context.Context, m controlMessage) (controlMessage, error) {
	c := &s.control
	answer := make(chan controlMessage, 1)
	c.mu.Lock()
	c.lastID++
	m.ID = c.lastID
	c.waiting[m.ID] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, m.ID)
		c.mu.Unlock()
	}()
	if err := c.send(m); err != nil {
		return controlMessage{}, err
	}
	select {
	case a := <-answer:
		if a.Code != "" {
			return a, &Refusal{Code: ParseCode(a.Code), Message: printable(a.Text)}
		}
		return a, nil
	case <-ctx.Done():
		return controlMessage{}, ctx.Err()
	case <-s.closing:
		return controlMessage{}, s.Err()
	}
}

func (c *controlStream) answered(m controlMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer := c.waiting[m.ID]; answer != nil {
		delete(c.waiting, m.ID)
		answer <- m
	}
}

// work runs job after those queued before it, away from the reader, which must go on answering pings.
func (c *controlStream) work(job func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.jobs) >= jobsMost {
		return false
	}
	c.jobs = append(c.jobs, job)
	if !c.working {
		c.working = true
		c.workers.Go(c.runJobs) // joined by the session's loop
	}
	return true
}

func (c *controlStream) runJobs() {
	for {
		c.mu.Lock()
		if len(c.jobs) == 0 {
			c.working = false
			c.mu.Unlock()
			return
		}
		job := c.jobs[0]
		c.jobs = c.jobs[1:]
		c.mu.Unlock()
		job()
	}
}

// readControl is the control stream's reader. It ends with the stream.
func (s *Session) readControl() {
	defer close(s.control.ended)
	if s.relay && !s.acceptControl() {
		return
	}
	r := bufio.NewReaderSize(s.control.mux, readerSize)
	for {
		var m controlMessage
		_, err := readMessage(r, &m, controlBytes)
		if err == nil && !s.control.rate.take(time.Now()) {
			err = errFlood
		}
		if err == nil {
			err = s.receive(m)
		}
		switch {
		case err == nil:
			continue
		case errors.Is(err, errProtocol), errors.Is(err, errMalformed), errors.Is(err, errOversized):
			s.end(&SessionError{Code: CodeProtocolError, Err: err}, true)
		}
		return
	}
}

// acceptControl waits for the client's first stream.
func (s *Session) acceptControl() bool {
	late := time.AfterFunc(handshakeTimeout, func() {
		s.fail(&SessionError{Code: CodeTimeout, Reason: "no control stream"})
	})
	defer late.Stop()
	mux, err := s.mux.AcceptStream()
	if err != nil {
		return false
	}
	s.table.claim(mux.StreamID())
	s.control.mux = mux
	close(s.control.ready)
	return true
}

// receive acts on a message of the peer. Types it does not know are passed over: a newer peer may have more to say.
func (s *Session) receive(m controlMessage) error {
	switch m.Type {
	case msgPing:
		s.control.send(controlMessage{Type: msgPong, ID: m.ID}) // who asks faster than it reads gets fewer answers
	case msgRefreshed, msgAnnounced, msgRotated, msgKeyRenewed, msgWitnessed:
		s.control.answered(m)
	case msgGoAway:
		s.dismissed.Store(true)
		s.drain()
	case msgReason:
		s.fail(&SessionError{Code: knownCode(m.Code), Reason: printable(m.Text), Remote: true})
	case msgNotice:
		if !s.relay && s.client.OnNotice != nil {
			s.client.OnNotice(Notice{Kind: printable(m.Kind), Text: printable(m.Text)})
		}
	case msgWithdraw:
		return s.receiveWithdrawal(m)
	case msgLoad:
		return s.takeLoad(m)
	case msgRefresh, msgAnnounce, msgRotate:
		return s.receiveRequest(m)
	case msgRenewKey, msgRelayKeys, msgCheckpoint:
		return s.receiveRelay(m)
	}
	return nil
}

// knownCode keeps an unknown text from reading as no code at all.
func knownCode(text string) Code {
	if code := ParseCode(text); code != CodeNone {
		return code
	}
	return CodeRefused
}

func (s *Session) receiveRequest(m controlMessage) error {
	job, answer := func() { s.takeAnnouncement(m) }, msgAnnounced
	allowed := s.relay && s.Role() == RoleAgent
	switch m.Type {
	case msgRefresh:
		job, answer = func() { s.takeRefresh(m) }, msgRefreshed
		allowed = s.relay && s.Role() == RoleUser
	case msgRotate:
		job, answer = func() { s.takeRotate(m) }, msgRotated
	}
	if !allowed {
		return violation("control message of the wrong side")
	}
	if !s.control.work(job) {
		s.answer(controlMessage{Type: answer, ID: m.ID, Code: CodeOverloaded.String()})
	}
	return nil
}

func (s *Session) drain() {
	if !s.leaving.Swap(true) {
		close(s.leave)
	}
}
