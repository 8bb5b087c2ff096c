package tunnel

import (
	"encoding/binary"
	"errors"
)

// The frames of yamux: version, type, flags (2), stream id (4), length (4), big endian; then length bytes of data in
// frames of type data. yamux has them too, unexported; they are its wire format and cannot change without a new version.
const (
	frameHeaderBytes = 12

	frameData   = 0
	frameWindow = 1
	framePing   = 2
	frameGoAway = 3

	flagSYN = 1
	flagACK = 2
	flagFIN = 4
	flagRST = 8
)

// errProtocol ends a session whose peer breaks the framing. The wrapped text says how; the peer only learns the code.
var errProtocol = errors.New("protocol violated")

type frameHeader struct {
	kind   byte
	flags  uint16
	id     uint32
	length uint32
}

// body is how many bytes follow the header.
func (h frameHeader) body() int {
	if h.kind == frameData {
		return int(h.length)
	}
	return 0
}

func (h frameHeader) has(flag uint16) bool { return h.flags&flag != 0 }

// urgent is false for what may wait for company: a bare SYN or ACK.
func (h frameHeader) urgent() bool {
	return h.kind != frameWindow || h.length != 0 || h.has(flagFIN|flagRST)
}

func (h frameHeader) append(b []byte) []byte {
	b = append(b, 0, h.kind)
	b = binary.BigEndian.AppendUint16(b, h.flags)
	b = binary.BigEndian.AppendUint32(b, h.id)
	return binary.BigEndian.AppendUint32(b, h.length)
}

func (h frameHeader) put(b []byte) {
	b[0], b[1] = 0, h.kind
	binary.BigEndian.PutUint16(b[2:4], h.flags)
	binary.BigEndian.PutUint32(b[4:8], h.id)
	binary.BigEndian.PutUint32(b[8:12], h.length)
}

// parseFrame reads the first twelve bytes of b and checks what can be judged without knowing the stream.
func parseFrame(b []byte) (frameHeader, error) {
	h := frameHeader{
		kind:   b[1],
		flags:  binary.BigEndian.Uint16(b[2:4]),
		id:     binary.BigEndian.Uint32(b[4:8]),
		length: binary.BigEndian.Uint32(b[8:12]),
	}
	switch {
	case b[0] != 0:
		return h, violation("unknown frame version")
	case h.kind > frameGoAway:
		return h, violation("unknown frame type")
	case h.flags&^(flagSYN|flagACK|flagFIN|flagRST) != 0:
		return h, violation("unknown frame flag")
	case h.kind >= framePing:
		return h, nil
	case h.id == 0:
		return h, violation("stream frame without a stream")
	case h.has(flagSYN) && h.flags != flagSYN:
		return h, violation("open combined with another flag")
	case h.has(flagRST) && (h.kind != frameWindow || h.has(flagFIN)):
		return h, violation("reset combined with data or end")
	case !h.has(flagRST) && h.length > windowMost:
		return h, violation("frame larger than any window")
	}
	return h, nil
}

type violationError struct{ what string }

func violation(what string) error { return &violationError{what} }

func (e *violationError) Error() string { return "protocol violated: " + e.what }

func (e *violationError) Is(target error) bool { return target == errProtocol }
