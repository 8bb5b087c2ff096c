package tunnel

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// ErrSessionLost is what every error of a dead session is: errors.Is(err, ErrSessionLost).
var ErrSessionLost = errors.New("session lost")

// ErrNotSent is what an error of Open and WriteHeader is if it came before any byte of the header left, and an
// [AbortError] of a stream that the peer turned away unread: the peer has not acted on it. Of every other error it is
// unknown.
var ErrNotSent = errors.New("nothing was sent")

// notSentError makes err an ErrNotSent.
type notSentError struct{ err error }

func (e *notSentError) Error() string        { return e.err.Error() }
func (e *notSentError) Unwrap() error        { return e.err }
func (e *notSentError) Is(target error) bool { return target == ErrNotSent }

// An AbortError is what Read and Write of a stream return after either side aborted it.
type AbortError struct {
	Code   Code
	Remote bool // the peer did it
	Unread bool // it did so instead of accepting the stream: it drains, or has too many
}

// Is makes what was turned away unread an ErrNotSent.
func (e *AbortError) Is(target error) bool { return target == ErrNotSent && e.Unread }

func (e *AbortError) Error() string {
	if e.Remote {
		return "stream aborted by the peer: " + e.Code.String()
	}
	return "stream aborted: " + e.Code.String()
}

// A SessionError is what every stream of a dead session returns, and what Session.Err says. It proves only that the
// session is over: whether the peer acted on the last bytes is unknown.
type SessionError struct {
	Code   Code
	Reason string // for a person; may be empty
	Remote bool   // the peer ended it and said why
	Err    error  // the cause below, or nil
}

func (e *SessionError) Error() string {
	text := "session lost: " + e.Code.String()
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap gives the cause below.
func (e *SessionError) Unwrap() error { return e.Err }

// Is makes every SessionError an ErrSessionLost.
func (e *SessionError) Is(target error) bool { return target == ErrSessionLost }

// A DialError says how far a connection to the relay came.
type DialError struct {
	Stage string // resolve, proxy, tcp, tls, upgrade or handshake
	Code  Code   // CodeNone where the network, and not a peer, said no
	Err   error  // its text is fit for a person
}

func (e *DialError) Error() string {
	if e.Code == CodeNone {
		return fmt.Sprintf("%s: %v", e.Stage, e.Err)
	}
	return fmt.Sprintf("%s: %v (%s)", e.Stage, e.Err, e.Code)
}

// Unwrap gives the cause.
func (e *DialError) Unwrap() error { return e.Err }

// A Refusal is an error whose code and message the peer may read. Authenticate, Bind, Refresh and OnAnnounce return one
// to say why; any other error reaches the peer as "refused" without detail.
type Refusal struct {
	Code    Code
	Message string
}

func (e *Refusal) Error() string {
	if e.Message == "" {
		return e.Code.String()
	}
	return e.Code.String() + ": " + e.Message
}

// printable makes a peer's text fit for a terminal and a log line: control characters could forge either.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}

// CodeOf finds the code in err's chain: of an AbortError, a SessionError, a DialError or a Refusal. CodeNone if it has none.
func CodeOf(err error) Code {
	var abort *AbortError
	if errors.As(err, &abort) {
		return abort.Code
	}
	var lost *SessionError
	if errors.As(err, &lost) {
		return lost.Code
	}
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return refusal.Code
	}
	var dial *DialError
	if errors.As(err, &dial) {
		return dial.Code
	}
	return CodeNone
}
