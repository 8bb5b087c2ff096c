package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"

	"iap/tunnel"
)

// chunkBytes is one read of an answer: a frame of the tunnel less its framing.
const chunkBytes = 32<<10 - chunkRoom

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

// writeAnswer puts the upstream's answer on the stream as it comes: every read
// is one write, with no wait for more. An answer that the upstream delimits by
// closing is chunked, so that its end and a broken connection stay apart.
func (b *buffers) writeAnswer(st *tunnel.Stream, method string, response *http.Response) error {
	if response.StatusCode < 200 { // 101 above all: no upgrade was asked for
		return fmt.Errorf("%w: status %d", errUpstreamBroke, response.StatusCode)
	}
	bodyless := method == http.MethodHead || response.StatusCode == http.StatusNoContent || response.StatusCode == http.StatusNotModified
	chunked := !bodyless && response.ContentLength < 0
	if err := st.WriteReply(tunnel.Reply{OK: true}, answerHead(response, bodyless, chunked)); err != nil {
		return err
	}
	if bodyless {
		return nil
	}
	buffer := b.take()
	defer b.give(buffer)
	if chunked {
		return writeChunked(st, response.Body, *buffer)
	}
	return writeKnown(st, response.Body, response.ContentLength, *buffer)
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

// writeChunked writes each read as one chunk in one write.
func writeChunked(st io.Writer, body io.Reader, buffer []byte) error {
	for {
		n, err := body.Read(buffer[chunkRoom : chunkRoom+chunkBytes])
		if n > 0 {
			if _, werr := st.Write(chunk(buffer, n)); werr != nil {
				return werr
			}
		}
		if errors.Is(err, io.EOF) {
			_, err = io.WriteString(st, "0\r\n\r\n")
			return err
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errUpstreamBroke, err)
		}
	}
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

// writeKnown writes a body whose length went ahead of it.
func writeKnown(st io.Writer, body io.Reader, length int64, buffer []byte) error {
	for length > 0 {
		n, err := body.Read(buffer[:min(int64(len(buffer)), length)])
		if n > 0 {
			if _, werr := st.Write(buffer[:n]); werr != nil {
				return werr
			}
			length -= int64(n)
		}
		if err != nil && length > 0 {
			return fmt.Errorf("%w: %w", errUpstreamBroke, err)
		}
	}
	return nil
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
