package tunnel

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
)

// A seal authenticates the headers of an agent session: an HMAC-SHA256 under the key that both ends derived from their
// ephemeral keys, over everything the header says, who says it, on which stream and in which place. A relay that only
// holds an old session's bytes, or a stream's, can put them nowhere else.
type seal struct {
	local, remote Role // who seals, who is verified

	mu     sync.Mutex
	mac    hash.Hash // guarded by mu
	buf    []byte    // guarded by mu
	next   uint64    // guarded by mu
	window replay    // guarded by mu
}

// roleRelay is the relay's name in a seal.
const roleRelay Role = "relay"

func newSeal(key []byte, local, remote Role) *seal {
	return &seal{local: local, remote: remote, mac: hmac.New(sha256.New, key)}
}

// sign numbers and seals h for the stream.
func (s *seal) sign(h *Header, stream uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	h.Seq = s.next
	h.MAC = s.sumLocked(h, s.local, stream)
}

// verify checks h as read from the stream whose last header had the number last.
func (s *seal) verify(h *Header, stream uint32, last uint64) Code {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !hmac.Equal(h.MAC, s.sumLocked(h, s.remote, stream)) {
		return CodeBadMAC
	}
	if h.Seq <= last || !s.window.admit(h.Seq) {
		return CodeReplayed
	}
	return CodeNone
}

func (s *seal) sumLocked(h *Header, sender Role, stream uint32) []byte {
	s.buf = appendCanonical(s.buf[:0], h, sender, stream)
	s.mac.Reset()
	s.mac.Write(s.buf)
	return s.mac.Sum(nil)
}

// appendCanonical writes every field of h but the MAC in one unambiguous way: fixed order, each with its length, each
// list with its count.
func appendCanonical(b []byte, h *Header, sender Role, stream uint32) []byte {
	b = appendField(b, "iap-header-v1")
	b = appendField(b, string(sender))
	b = binary.BigEndian.AppendUint32(b, stream)
	b = binary.BigEndian.AppendUint64(b, h.Seq)
	for _, text := range [...]string{
		h.Service, h.Resource, h.Kind, h.Request, h.Session, h.Principal,
		h.Action, h.Model, h.Method, h.Path, h.Grant,
	} {
		b = appendField(b, text)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(int64(h.Priority)))
	b = binary.BigEndian.AppendUint64(b, uint64(h.TimeoutMS))
	if h.Local == nil {
		return append(b, 0)
	}
	b = append(b, 1)
	b = appendList(b, h.Local.AllowOrigins)
	b = appendList(b, h.Local.AllowHosts)
	b = appendField(b, string(h.Local.KeyHash))
	return appendField(b, h.Local.Listen)
}

// signReply vouches for a reply's NotSent: it answers the header with the number seq on the stream, and nothing else.
func (s *seal) signReply(r *Reply, stream uint32, seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.MAC = s.replySumLocked(r, s.local, stream, seq)
}

func (s *seal) verifyReply(r *Reply, stream uint32, seq uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return hmac.Equal(r.MAC, s.replySumLocked(r, s.remote, stream, seq))
}

func (s *seal) replySumLocked(r *Reply, sender Role, stream uint32, seq uint64) []byte {
	b := appendField(s.buf[:0], "iap-reply-v1")
	b = appendField(b, string(sender))
	b = binary.BigEndian.AppendUint32(b, stream)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = append(b, truth(r.OK), truth(r.NotSent))
	b = appendField(b, r.Code)
	b = appendField(b, r.Message)
	s.buf = binary.BigEndian.AppendUint64(b, uint64(r.RetryAfterMS))
	s.mac.Reset()
	s.mac.Write(s.buf)
	return s.mac.Sum(nil)
}

func truth(yes bool) byte {
	if yes {
		return 1
	}
	return 0
}

func appendField[T ~string | ~[]byte](b []byte, field T) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(field)))
	return append(b, field...)
}

func appendList(b []byte, list []string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(list)))
	for _, field := range list {
		b = appendField(b, field)
	}
	return b
}

// A replay window admits each sequence number once. Streams are concurrent, so numbers arrive out of order: those up to
// replayWindow behind the newest are remembered one by one, older ones are refused (RFC 4303, section 3.4.3).
type replay struct {
	newest uint64
	seen   [replayWindow / 64]uint64
}

func (r *replay) admit(seq uint64) bool {
	switch {
	case seq == 0 || seq+replayWindow <= r.newest:
		return false
	case seq > r.newest:
		r.advance(seq)
	}
	word, bit := &r.seen[seq/64%(replayWindow/64)], uint64(1)<<(seq%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}

// advance forgets what falls out of the window as seq becomes the newest.
func (r *replay) advance(seq uint64) {
	if seq-r.newest >= replayWindow {
		r.seen = [replayWindow / 64]uint64{}
	} else {
		for n := r.newest + 1; n <= seq; n++ {
			r.seen[n/64%(replayWindow/64)] &^= 1 << (n % 64)
		}
	}
	r.newest = seq
}
