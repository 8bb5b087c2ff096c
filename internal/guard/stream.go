package guard

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"iap/internal/modelapi"
	"iap/internal/modelapi/meter"
)

// stream copies one answer's body to the caller as it comes.
type stream struct {
	x        *exchange
	class    modelapi.Class // with the framing the answer has, not the one asked for
	length   int64          // that the upstream promised; -1 if open
	promised bool           // the caller was promised it too
	received int64          // of the upstream's bytes
	control  *http.ResponseController
	meter    *meter.Meter // nil: nothing is counted
	owned    bool         // the id that the answer hands out is noted
	onset    onset
	reader   *readerWatch         // nil: it may take its time
	tail     [len(lastEvent)]byte // the last bytes sent, newest last
}

// lastEvent ends a stream of OpenAI's protocol. Clients close their connection as soon as they have read it.
const lastEvent = "data: [DONE]\n\n"

// copy returns nil when the answer is whole. Else it has told the caller why, as far as the framing allows.
func (s *stream) copy(ctx context.Context, body io.Reader) *ending {
	buffer := s.x.guard.smallBuffer()
	defer func() { s.x.guard.putBuffer(buffer) }()
	if !s.promised {
		s.reader.begin()
		err := s.control.Flush()
		s.reader.end()
		if err != nil { // the head goes ahead of a first token that may be minutes away
			return s.writeEnd(ctx, err)
		}
	}
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			s.received += int64(n)
			full := n == len(buffer)
			last := err != nil || s.length >= 0 && s.received == s.length
			if end := s.pass(ctx, buffer[:n], !last); end != nil {
				return s.say(end)
			}
			if full && len(buffer) == smallBuffer {
				s.x.guard.putBuffer(buffer) // this one comes fast
				buffer = s.x.guard.largeBuffer()
			}
		}
		switch {
		case err == nil:
		case !errors.Is(err, io.EOF) || ctx.Err() != nil:
			return s.say(s.x.endOf(ctx, err))
		case s.length >= 0 && s.received != s.length:
			return s.say(s.x.endOf(ctx, io.ErrUnexpectedEOF))
		default:
			return s.rest(ctx)
		}
	}
}

// pass counts a piece and sends it, or what of it the caller is to see. What was generated is sent before the answer is
// cut for it, but not the event behind which OpenAI's clients read no more: they would miss why.
func (s *stream) pass(ctx context.Context, p []byte, flush bool) *ending {
	out, end := s.meterAnswer(ctx, p)
	if end != nil {
		return end
	}
	if s.meter != nil {
		if end = s.charge(); end != nil {
			out = bytes.TrimSuffix(out, []byte(lastEvent))
		}
	}
	if len(out) > 0 {
		if err := s.write(out, flush); err != nil {
			return s.writeEnd(ctx, err)
		}
	}
	return end
}

// rest sends what the meter held back of a whole answer.
func (s *stream) rest(ctx context.Context) *ending {
	if s.meter == nil {
		return nil
	}
	if out := s.meter.Rest(); len(out) > 0 {
		if err := s.write(out, false); err != nil {
			return s.say(s.writeEnd(ctx, err))
		}
	}
	return nil
}

// write sends bytes, at once unless they are the last, which the answer's end sends.
func (s *stream) write(p []byte, flush bool) error {
	x := s.x
	if x.ttft == 0 && s.onset.in(p, s.class.Framing) {
		x.ttft = x.guard.now().Sub(x.start)
	}
	s.reader.begin()
	defer s.reader.end()
	n, err := x.w.Write(p)
	x.sent += int64(n)
	if err != nil {
		return err
	}
	if len(p) >= len(s.tail) {
		copy(s.tail[:], p[len(p)-len(s.tail):])
	} else {
		copy(s.tail[:], s.tail[len(p):])
		copy(s.tail[len(s.tail)-len(p):], p)
	}
	if flush {
		return s.control.Flush()
	}
	return nil
}

// onset finds the first byte of an answer behind the comments that tell a waiting client of its place in the queue.
type onset struct{ comment bool }

func (o *onset) in(p []byte, f modelapi.Framing) bool {
	if f != modelapi.SSE {
		return true
	}
	for _, c := range p {
		switch {
		case c == '\n':
			o.comment = false
		case o.comment || c == '\r':
		case c == ':':
			o.comment = true
		default:
			return true
		}
	}
	return false
}

// writeEnd tells a caller that left from an upstream that sent more than it promised.
func (s *stream) writeEnd(ctx context.Context, err error) *ending {
	if errors.Is(err, http.ErrContentLength) {
		return s.x.endOf(ctx, err)
	}
	if ctx.Err() != nil {
		return s.x.endOf(ctx, err)
	}
	return &ending{code: clientGone}
}

// say writes the error event of the caller's protocol, if there is room for one and somebody to read it.
func (s *stream) say(end *ending) *ending {
	if end.code == clientGone && end.status == 0 {
		if s.class.Framing == modelapi.SSE && string(s.tail[:]) == lastEvent {
			return nil // it left with the whole answer
		}
		return end
	}
	if s.promised {
		return end
	}
	if event := modelapi.StreamError(s.class, end.asError(), s.atBoundary()); event != nil {
		_, _ = s.x.w.Write(event)
	}
	// What came before the cut leaves too; an error means that nobody reads any more.
	_ = s.control.Flush()
	return end
}

// atBoundary says whether the bytes sent so far end with a whole message.
func (s *stream) atBoundary() bool {
	if s.x.sent == 0 {
		return true
	}
	tail := string(s.tail[:])
	if s.class.Framing == modelapi.NDJSON {
		return strings.HasSuffix(tail, "\n")
	}
	return strings.HasSuffix(tail, "\n\n") || strings.HasSuffix(tail, "\r\n\r\n")
}

func (g *Guard) smallBuffer() []byte {
	if b, ok := g.smallBuffers.Get().(*[smallBuffer]byte); ok {
		return b[:]
	}
	return make([]byte, smallBuffer)
}

func (g *Guard) largeBuffer() []byte {
	if b, ok := g.largeBuffers.Get().(*[largeBuffer]byte); ok {
		return b[:]
	}
	return make([]byte, largeBuffer)
}

func (g *Guard) putBuffer(b []byte) {
	switch len(b) {
	case smallBuffer:
		g.smallBuffers.Put((*[smallBuffer]byte)(b))
	case largeBuffer:
		g.largeBuffers.Put((*[largeBuffer]byte)(b))
	}
}

// closeOnce is a body that is closed once, by whoever comes first, while the other waits.
type closeOnce struct {
	body io.ReadCloser
	once sync.Once
}

func newBody(body io.ReadCloser) *closeOnce {
	if body == nil {
		body = http.NoBody
	}
	return &closeOnce{body: body}
}

func (c *closeOnce) Read(p []byte) (int, error) { return c.body.Read(p) }

func (c *closeOnce) Close() {
	// An error of closing changes nothing for the caller: the answer is whole or was cut.
	c.once.Do(func() { _ = c.body.Close() })
}
