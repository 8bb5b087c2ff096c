package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
)

// chunked is the length of an answer that does not tell it.
const chunked = -1

const (
	maxErrorBody = 300     // of a refusal that is shown
	discardStep  = 1 << 20 // bufio counts in int
)

// conn is one HTTP/1.1 connection.
type conn struct {
	net.Conn
	r *bufio.Reader
}

type response struct {
	status int
	length int64 // or chunked
}

// Spelled out once, since the comparison is on the path that is measured.
const (
	headerLength   = "content-length"
	headerEncoding = "transfer-encoding"
)

// readHead reads a status line and headers.
func (c *conn) readHead() (response, error) {
	var resp response
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return resp, err
	}
	if len(line) < len("HTTP/1.1 200") || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return resp, fmt.Errorf("bad status line %q", line)
	}
	if resp.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return resp, fmt.Errorf("bad status line %q", line)
	}
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return resp, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return resp, nil
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return resp, fmt.Errorf("bad header %q", line)
		}
		switch {
		case bytes.EqualFold(name, []byte(headerLength)):
			if resp.length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err != nil {
				return resp, err
			}
		case bytes.EqualFold(name, []byte(headerEncoding)):
			resp.length = chunked
		}
	}
}

// begin sends a request and reads the head of an answer that must be 200.
func (c *conn) begin(request []byte) (response, error) {
	if _, err := c.Write(request); err != nil {
		return response{}, err
	}
	resp, err := c.readHead()
	if err == nil && resp.status != http.StatusOK {
		text, _ := c.r.Peek(min(c.r.Buffered(), maxErrorBody)) // what came with the head is enough to see why
		err = fmt.Errorf("status %d: %s", resp.status, text)
	}
	return resp, err
}

// roundTrip sends one request and reads all of its answer.
func (c *conn) roundTrip(request []byte) error {
	resp, err := c.begin(request)
	if err != nil {
		return err
	}
	if resp.length == chunked {
		if _, err := io.Copy(io.Discard, httputil.NewChunkedReader(c.r)); err != nil {
			return err
		}
		_, err := c.r.ReadSlice('\n') // the empty line after the last chunk
		return err
	}
	for left := resp.length; left > 0; {
		n, err := c.r.Discard(int(min(left, discardStep)))
		if err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}

// Stamps that fakeslm puts into every token.
const (
	dueKey  = `"x_due_ns":`
	sentKey = `"x_sent_ns":`
)

const lineBuffer = 1 << 10 // a token's line is a quarter of it

// stream sends a request for a streamed answer and calls token for each token.
func (c *conn) stream(request []byte, token func(due, sent int64)) error {
	resp, err := c.begin(request)
	if err != nil {
		return err
	}
	if resp.length != chunked {
		return errors.New("the answer is not streamed")
	}
	lines := bufio.NewReaderSize(httputil.NewChunkedReader(c.r), lineBuffer)
	for {
		line, err := lines.ReadSlice('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if sent, ok := numberAfter(line, sentKey); ok {
			due, _ := numberAfter(line, dueKey)
			token(due, sent)
		}
	}
}

func numberAfter(line []byte, key string) (int64, bool) {
	i := bytes.Index(line, []byte(key))
	if i < 0 {
		return 0, false
	}
	var n int64
	for _, ch := range line[i+len(key):] {
		if ch < '0' || ch > '9' {
			break
		}
		n = n*10 + int64(ch-'0')
	}
	return n, true
}
