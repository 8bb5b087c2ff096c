package tunnel

import (
	"errors"
	"io"
	"net"
)

// An exchange reads and writes the four messages on a bare connection. It reads not one byte too many: what follows is
// the multiplexer's.
type exchange struct {
	conn net.Conn
	left int // bytes that may still be read
}

func (x *exchange) read(v any) error {
	n, err := readMessage(x.conn, v, x.left-lengthBytes)
	x.left -= n
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (x *exchange) write(v any) error {
	b, err := appendMessage(nil, v, handshakeBytes)
	if err != nil {
		return err
	}
	_, err = x.conn.Write(b)
	return err
}
