package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"

	"iap/tunnel"
)

// chunkBytes is one read of an answer: a frame of the tunnel less its framing.
const chunkBytes = 32<<10 - chunkRoom

// tokenBytes is one read of an answer that comes token by token: thousands of
// them wait at once.
const tokenBytes = 2 << 10

// chunkRoom holds a chunk's size in front of it: up to eight digits and CRLF.
const chunkRoom = 16

// buffers are reused from answer to answer: one is in use for as long as an
// answer runs.
type buffers struct{ pool sync.Pool }

func (b *buffers) take() *[]byte {
	if one, ok := b.pool.Get().(*[]byte); ok {
		return one
	}
	one := make([]byte, chunkRoom+chunkBytes+2)
	return &one
}

func (b *buffers) give(one *[]byte) { b.pool.Put(one) }

// errUpstreamBroke is an answer that ended before its end.
var errUpstreamBroke = errors.New("the upstream broke off")

// answer puts the upstream's answer on the stream as it comes: every read is
// one write, with no wait for more. An answer that the upstream delimits by
// closing is chunked, so that its end and a broken connection stay apart.
func (x *exchange) answer(response *http.Response) error {
	if response.StatusCode < 200 { // 101 above all: no upgrade was asked for
		return fmt.Errorf("%w: status %d", errUpstreamBroke, response.StatusCode)
	}
	body := x.upstream.masked(response)
	w := &bodyWriter{stream: x.stream, buffers: &x.agent.buffers, small: make([]byte, chunkRoom+tokenBytes+2)}
	defer w.release()
	if x.begun {
		if no := x.noStream(response, body); no != nil {
			x.log(slog.LevelWarn, "the answer of a request that waited is no stream", "status", response.StatusCode)
			x.unread = response.StatusCode < 400 // an error has been read, and nothing is generated for it
			return x.endInBand(no)
		}
		return w.chunked(body)
	}
	bodyless := x.request.Method == http.MethodHead || response.StatusCode == http.StatusNoContent || response.StatusCode == http.StatusNotModified
	chunked := !bodyless && response.ContentLength < 0
	if err := x.stream.WriteReply(tunnel.Reply{OK: true}, answerHead(response, bodyless, chunked)); err != nil {
		return err
	}
	switch {
	case bodyless:
		return nil
	case chunked:
		return w.chunked(body)
	default:
		return w.known(body, response.ContentLength)
	}
}

func answerHead(response *http.Response, bodyless, chunked bool) []byte {
	var b bytes.Buffer
	b.Grow(512)
	b.WriteString("HTTP/1.1 " + strconv.Itoa(response.StatusCode) + " " + http.StatusText(response.StatusCode) + "\r\n")
	dropHopByHop(response.Header)
	_ = response.Header.Write(&b) // a buffer takes everything
	switch {
	case chunked:
		b.WriteString("Transfer-Encoding: chunked\r\n")
	case !bodyless || response.ContentLength >= 0:
		b.WriteString("Content-Length: " + strconv.FormatInt(max(response.ContentLength, 0), 10) + "\r\n")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// bodyWriter puts a body on a stream, each read in one write.
type bodyWriter struct {
	stream  io.Writer
	buffers *buffers
	small   []byte  // while the answer comes in tokens
	large   *[]byte // from the pool, once a read has filled small
}

// buffer is where the next read goes.
func (w *bodyWriter) buffer() []byte {
	if w.large != nil {
		return *w.large
	}
	return w.small
}

// grow takes a large buffer for an answer that fills the small one.
func (w *bodyWriter) grow(read int) {
	if w.large == nil && read == tokenBytes {
		w.large = w.buffers.take()
	}
}

func (w *bodyWriter) release() {
	if w.large != nil {
		w.buffers.give(w.large)
	}
}

// chunked writes each read as one chunk.
func (w *bodyWriter) chunked(body io.Reader) error {
	for {
		buffer := w.buffer()
		n, err := body.Read(buffer[chunkRoom : len(buffer)-2])
		if n > 0 {
			if _, werr := w.stream.Write(chunk(buffer, n)); werr != nil {
				return werr
			}
			w.grow(n)
		}
		if errors.Is(err, io.EOF) {
			_, err = io.WriteString(w.stream, "0\r\n\r\n")
			return err
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errUpstreamBroke, err)
		}
	}
}

// known writes a body whose length went ahead of it.
func (w *bodyWriter) known(body io.Reader, length int64) error {
	for length > 0 {
		buffer := w.buffer()
		n, err := body.Read(buffer[chunkRoom:min(int64(len(buffer)-2), chunkRoom+length)])
		if n > 0 {
			if _, werr := w.stream.Write(buffer[chunkRoom : chunkRoom+n]); werr != nil {
				return werr
			}
			length -= int64(n)
			w.grow(n)
		}
		if err != nil && length > 0 {
			return fmt.Errorf("%w: %w", errUpstreamBroke, err)
		}
	}
	return nil
}

// chunk frames the n bytes behind buffer's room in place.
func chunk(buffer []byte, n int) []byte {
	var size [chunkRoom]byte
	digits := append(strconv.AppendUint(size[:0], uint64(n), 16), '\r', '\n')
	start := chunkRoom - len(digits)
	copy(buffer[start:], digits)
	end := chunkRoom + n
	buffer[end], buffer[end+1] = '\r', '\n'
	return buffer[start : end+2]
}

// endBroken ends the stream of an answer that broke off. If the upstream broke,
// the tokens before still count: the framing shows the cut, and an abort would
// overtake them.
func endBroken(st *tunnel.Stream, err error) {
	if errors.Is(err, errUpstreamBroke) {
		_ = st.Close()
		return
	}
	st.Abort(tunnel.CodeCanceled)
}
