package recording

import (
	"errors"
	"net/http"
	"time"
)

// Request is what is recorded of a request as it goes upstream.
type Request struct {
	ID       string
	Resource string
	Action   string
	Model    string
	Grant    string
	Method   string
	Path     string // with its query, as sent
	Header   http.Header
	Body     []byte
}

// Record is one request and its answer. It is for one goroutine; End or Discard ends it, once.
type Record struct {
	keeper  *Keeper
	id      string
	asked   *file // until it is whole
	path    string
	answer  *file // nil until the answer begins
	begun   time.Time
	left    int64 // that may still be recorded of the answer
	passed  int64 // of the answer's bytes
	wasCut  bool
	failure error
}

// Begin writes a request down. Once it returns without an error the file is whole, and so is the one the answer will
// go to.
func (k *Keeper) Begin(q Request) (*Record, Mark, error) {
	dir, err := k.place(q.ID)
	if err != nil {
		return nil, Mark{}, err
	}
	base := dir + q.ID
	asked, err := k.create(base + requestSuffix)
	if err != nil {
		return nil, Mark{}, err
	}
	r := &Record{keeper: k, id: q.ID, asked: asked, path: base, left: k.most}
	mark, err := r.writeRequest(q)
	if err == nil {
		r.answer, err = k.create(base + answerSuffix)
	}
	if err != nil {
		return nil, Mark{}, errors.Join(err, asked.remove())
	}
	return r, mark, nil
}

func (r *Record) writeRequest(q Request) (Mark, error) {
	now := r.keeper.now().UTC()
	head := part{
		Part: partRequest, Version: version, ID: q.ID, Time: &now, Resource: q.Resource, Action: q.Action, Model: q.Model, Grant: q.Grant,
		Method: q.Method, Path: q.Path, Header: kept(q.Header), Of: int64(len(q.Body)),
	}
	body := q.Body[:min(int64(len(q.Body)), r.keeper.most)]
	if err := writePart(r.asked, head, body); err != nil {
		return Mark{}, err
	}
	if len(body) < len(q.Body) {
		if err := writePart(r.asked, part{Part: partCut}, nil); err != nil {
			return Mark{}, err
		}
	}
	if err := writePart(r.asked, part{Part: partEnd, Of: head.Of}, nil); err != nil {
		return Mark{}, err
	}
	return r.asked.finish()
}

// Discard takes back a request that was not sent after all.
func (r *Record) Discard() error { return errors.Join(r.asked.remove(), r.answer.remove()) }

// Answer records the head of the answer.
func (r *Record) Answer(status int, header http.Header) error {
	r.begun = r.keeper.now().UTC()
	return r.put(part{Part: partAnswer, Version: version, ID: r.id, Time: &r.begun, Status: status, Header: kept(header)}, nil)
}

// Write records a piece of the answer, before it is sent. After an error every other call fails.
func (r *Record) Write(p []byte) (int, error) {
	r.passed += int64(len(p))
	fits := p[:min(int64(len(p)), r.left)]
	r.left -= int64(len(fits))
	if len(fits) > 0 {
		if err := r.put(part{Part: partPiece, Ms: r.keeper.now().Sub(r.begun).Milliseconds()}, fits); err != nil {
			return 0, err
		}
	}
	if len(fits) < len(p) && !r.wasCut {
		r.wasCut = true
		if err := r.put(part{Part: partCut}, nil); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// End closes the recording and says why the answer ended. With an error it is not whole.
func (r *Record) End(why string) (Mark, error) {
	if err := r.put(part{Part: partEnd, Ended: why, Of: r.passed}, nil); err != nil {
		r.answer.abandon()
		return Mark{}, err
	}
	return r.answer.finish()
}

func (r *Record) put(p part, data []byte) error {
	if r.failure == nil {
		r.failure = writePart(r.answer, p, data)
	}
	return r.failure
}

// kept are the headers that say what a body is.
func kept(h http.Header) map[string][]string {
	var out map[string][]string
	for _, name := range []string{"Content-Type", "Accept", "User-Agent", "Anthropic-Version", "Anthropic-Beta", "Openai-Beta", "Openai-Model"} {
		if values := h[name]; len(values) > 0 {
			if out == nil {
				out = map[string][]string{}
			}
			out[name] = values
		}
	}
	return out
}
