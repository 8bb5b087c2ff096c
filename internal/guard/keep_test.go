package guard

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// spoilt is a recording that fails from its nth piece on, or at its end; 0: never.
type spoilt struct {
	piece, pieces int
	atEnd         bool
	kept          strings.Builder
	discarded     int
	ended         string
}

var errDisk = errors.New("the disk is gone")

func (b *spoilt) Answer(int, http.Header) error { return nil }

func (b *spoilt) Write(p []byte) (int, error) {
	if b.pieces++; b.piece > 0 && b.pieces >= b.piece {
		return 0, errDisk
	}
	return b.kept.Write(p)
}

func (b *spoilt) End(why string) (string, error) {
	b.ended = why
	if b.atEnd || b.piece > 0 && b.pieces >= b.piece {
		return "", errDisk
	}
	return "answer's mark", nil
}

func (b *spoilt) Discard() error {
	b.discarded++
	return nil
}

func keeping(b *spoilt) option {
	return func(f *fixture) {
		f.guard.Decide = func(context.Context, Question) Decision {
			return Decision{Allow: true, Reason: "allowed", Grant: "g1", Record: true}
		}
		f.guard.Keep = func(*Request) (Keeping, string, error) { return b, "request's mark", nil }
		f.guard.Forward = func(context.Context, *Request) (*Response, error) {
			return answerWith(200, "text/event-stream", "data: {\"choices\":[]}\n\ndata: [DONE]\n\n"), nil
		}
	}
}

func TestAnAnswerIsKeptAsItsCallerGetsIt(t *testing.T) {
	b := &spoilt{}
	f := newFixture(t, keeping(b))
	response := f.chat()
	text := readAll(t, response)
	outcome := f.outcome()
	if b.kept.String() != text || b.ended != completed || outcome.Recorded != "answer's mark" || f.recorded()[0].Recorded != "request's mark" {
		t.Errorf("kept %q of %q, %+v", b.kept.String(), text, outcome)
	}
	if response.Header.Get("X-Iap-Recorded") != "true" || b.discarded != 0 {
		t.Error("the caller is not told")
	}
}

func TestAnAnswerThatCannotBeKeptDoesNotEndWell(t *testing.T) {
	for name, b := range map[string]*spoilt{"at its first piece": {piece: 1}, "at its end": {atEnd: true}} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, keeping(b))
			text, err := io.ReadAll(f.chat().Body)
			outcome := f.outcome()
			if err == nil || outcome.Ended != recordingUnavailable || outcome.Recorded != "broken" {
				t.Errorf("%q, %v, %+v", text, err, outcome)
			}
			if b.piece > 0 && (!strings.Contains(string(text), recordingUnavailable) || strings.Contains(string(text), "DONE")) {
				t.Errorf("the caller got %q", text)
			}
		})
	}
}

func TestWhatIsNotSentIsNotKept(t *testing.T) {
	b := &spoilt{}
	f := newFixture(t, keeping(b), func(f *fixture) {
		f.guard.Record = func(context.Context, Event) error { return errDisk }
	})
	if response := f.chat(); response.StatusCode != 503 || b.discarded != 1 || len(f.forwarded()) != 0 || response.Header.Get("X-Iap-Recorded") != "" {
		t.Errorf("%s, %d discarded", response.Status, b.discarded)
	}
}

func TestWhatCannotBeKeptIsNotSent(t *testing.T) {
	for name, keep := range map[string]func(*Request) (Keeping, string, error){
		"nothing is configured": nil, "the disk is full": func(*Request) (Keeping, string, error) { return nil, "", errDisk },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, keeping(&spoilt{}), func(f *fixture) { f.guard.Keep = keep })
			if text := readAll(t, f.chat()); !strings.Contains(text, recordingUnavailable) || len(f.forwarded()) != 0 || f.recorded()[0].Reason != recordingUnavailable {
				t.Errorf("%s", text)
			}
		})
	}
}
