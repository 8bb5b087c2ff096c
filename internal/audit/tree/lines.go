package tree

import (
	"bytes"
	"crypto/sha256"
	"hash"
)

// Lines hashes lines as they come, in pieces of any size: a line may be longer than memory should be.
type Lines struct {
	hash  hash.Hash // of the line that has begun; nil: none has
	begun bool
}

// Feed hashes the lines that end in p and hands each leaf on, with the place behind its newline.
func (l *Lines) Feed(p []byte, leaf func(h Hash, end int)) {
	for at := 0; at < len(p); {
		end := bytes.IndexByte(p[at:], '\n')
		if end < 0 {
			l.write(p[at:])
			return
		}
		end += at
		if l.begun {
			l.write(p[at:end])
			var h Hash
			l.hash.Sum(h[:0])
			l.begun = false
			leaf(h, end+1)
		} else {
			leaf(Leaf(p[at:end]), end+1)
		}
		at = end + 1
	}
}

// Unfinished says whether there is a line whose end has not come.
func (l *Lines) Unfinished() bool { return l.begun }

func (l *Lines) write(p []byte) {
	if !l.begun {
		if l.hash == nil {
			l.hash = sha256.New()
		}
		l.hash.Reset()
		l.hash.Write([]byte{0}) // a leaf, as RFC 6962 has it
		l.begun = true
	}
	l.hash.Write(p)
}
