package guard

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"iap/internal/modelapi"
)

// stream copies one answer's body to the caller as it comes.
type stream struct {
	x       *exchange
	class   modelapi.Class // with the framing the answer has, not the one asked for
	length  int64          // promised; -1 if open
	control *http.ResponseController
	tail    [len(lastEvent)]byte // the last bytes sent, newest last
}

// lastEvent ends a stream of OpenAI's protocol. Clients close their connection as soon as they have read it.
const lastEvent = "data: [DONE]\n\n"

// copy returns nil when the answer is whole. Else it has told the caller why, as far as the framing allows.
func (s *stream) copy(ctx context.Context, body io.Reader) *ending {
	buffer := s.x.guard.smallBuffer()
	defer func() { s.x.guard.putBuffer(buffer) }()
	if s.length < 0 {
		if err := s.control.Flush(); err != nil { // the head goes ahead of a first token that may be minutes away
			return s.writeEnd(ctx, err)
		}
	}
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			full := n == len(buffer)
			last := err != nil || s.length >= 0 && s.x.sent+int64(n) == s.length
			if writeErr := s.write(buffer[:n], !last); writeErr != nil {
				return s.say(s.writeEnd(ctx, writeErr))
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
		case s.length >= 0 && s.x.sent != s.length:
			return s.say(s.x.endOf(ctx, io.ErrUnexpectedEOF))
		default:
			return nil
		}
	}
}

// write sends bytes, at once unless they are the last, which the answer's end sends.
func (s *stream) write(p []byte, flush bool) error {
	x := s.x
	if x.sent == 0 {
		x.ttft = x.guard.now().Sub(x.start)
	}
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
	if s.length >= 0 {
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
