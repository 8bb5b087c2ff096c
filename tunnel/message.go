package tunnel

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
)

// lengthBytes is the size of the length in front of every JSON message, big endian.
const lengthBytes = 4

var errOversized = errors.New("message too large")

// appendMessage appends v with its length in front.
func appendMessage(b []byte, v any, limit int) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return b, fmt.Errorf("encode message: %w", err)
	}
	if len(text) > limit {
		return b, fmt.Errorf("encode message of %d bytes: %w", len(text), errOversized)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	return append(b, text...), nil
}

// readMessage reads one message into v. io.EOF means an end before the first byte; any other end is unexpected. The
// length is judged before anything is allocated for it.
func readMessage(r io.Reader, v any, limit int) (size int, err error) {
	var head [lengthBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n > int64(limit) {
		return 0, fmt.Errorf("read message of %d bytes: %w", n, errOversized)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return 0, fmt.Errorf("read message: %w", errMalformed)
	}
	return lengthBytes + int(n), nil
}

// peekMessage is readMessage without a copy of the message, where it fits into r's buffer. A read that a deadline cuts
// short loses nothing: the next call begins anew.
func peekMessage(r *bufio.Reader, v any, limit int) error {
	head, err := r.Peek(lengthBytes)
	if err != nil {
		if errors.Is(err, io.EOF) && len(head) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	n := int64(binary.BigEndian.Uint32(head))
	if n > int64(limit) || lengthBytes+n > int64(r.Size()) {
		_, err := readMessage(r, v, limit)
		return err
	}
	text, err := r.Peek(lengthBytes + int(n))
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if err := json.Unmarshal(text[lengthBytes:], v); err != nil {
		return fmt.Errorf("read message: %w", errMalformed)
	}
	_, err = r.Discard(len(text))
	return err
}

var errMalformed = errors.New("malformed message")
