package verify

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"iap/internal/audit"
	"iap/internal/audit/checkpoint"
)

// BundleSchema names the form of a bundle.
const BundleSchema = "iap-audit-bundle/v1"

// maxBundleLine bounds a line of a bundle: a record, quoted once more, and its hashes.
const maxBundleLine = 256 << 10

// Subject says whose records a bundle holds.
type Subject struct {
	Principal string    `json:"principal"` // theirs, and what was done to them
	Since     time.Time `json:"since,omitzero"`
	Until     time.Time `json:"until,omitzero"`
}

// Concerns says whether a record is about the subject.
func (s Subject) Concerns(e *audit.Event) bool {
	name := audit.Quote(s.Principal)
	return (bytes.Equal(audit.Quote(e.Principal), name) || bytes.Equal(audit.Quote(e.Detail["target"]), name)) &&
		(s.Since.IsZero() || !e.Time.Before(s.Since)) && (s.Until.IsZero() || e.Time.Before(s.Until))
}

func (s Subject) meant(line []byte) bool {
	if !bytes.Contains(line, audit.Quote(s.Principal)) {
		return false
	}
	e, err := audit.Parse(line)
	return err == nil && s.Concerns(&e)
}

// BundleHead is a bundle's first line. Behind it stands a [ProvenRecord] a line, and then a BundleEnd.
type BundleHead struct {
	Schema     string             `json:"schema"`
	Origin     string             `json:"origin"`
	Made       time.Time          `json:"made"`
	Subject    Subject            `json:"subject"`
	Checkpoint string             `json:"checkpoint"` // the signed note
	Keys       checkpoint.KeyFile `json:"keys"`       // how the key that signed follows from others; no secret
}

// BundleEnd is a bundle's last line.
type BundleEnd struct {
	Records  int64 `json:"records"`
	Unsigned int64 `json:"unsigned"` // records that no checkpoint covered yet: they are not in it
}

// Bundle is what a bundle proves.
type Bundle struct {
	Head    BundleHead
	End     BundleEnd
	Signed  checkpoint.Signed
	Missing int64 // records of the subject that the log has up to the checkpoint, and the bundle has not; see [Compare]
}

// WriteBundle writes every record that concerns the subject, each with its proof. It holds one at a time.
func WriteBundle(ctx context.Context, w io.Writer, dir string, s Subject, made time.Time) (BundleEnd, error) {
	var end BundleEnd
	p := &prover{dir: dir}
	if err := p.open(); err != nil {
		return end, err
	}
	head := BundleHead{Schema: BundleSchema, Origin: p.head.Origin, Made: made, Subject: s, Checkpoint: string(p.note)}
	head.Keys, _, _ = audit.ReadKeys(dir) // who checks may know the key anyway
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	if err := out.Encode(head); err != nil {
		return end, err
	}
	err := p.find(ctx, 0, s.meant, func(line []byte, index int64) error {
		r, err := p.prove(line, index)
		if errors.Is(err, ErrNotSigned) {
			end.Unsigned++
			return nil
		}
		if err == nil {
			err = r.check(p.head)
		}
		if err != nil {
			return err
		}
		end.Records++
		return out.Encode(r)
	})
	if err != nil {
		return end, err
	}
	return end, out.Encode(end)
}

// CheckBundle reads a bundle to its end and verifies every record by keys that somebody trusts. What is wrong is an
// error that names the line. That no record is missing it cannot tell: see [Compare].
func CheckBundle(ctx context.Context, from io.Reader, anchors []checkpoint.Anchor) (*Bundle, error) {
	b := &Bundle{}
	last := int64(-1)
	err := b.read(ctx, from, func() (err error) {
		b.Signed, err = trusted(b.Head.Keys, b.Head.Origin, b.Head.Checkpoint, anchors)
		return err
	}, func(r ProvenRecord) error {
		if r.Index <= last {
			return errors.New("it stands out of its order, or twice")
		}
		last = r.Index
		e, err := audit.Parse([]byte(r.Line))
		if err != nil {
			return fmt.Errorf("it is no record: %w", err)
		}
		if !b.Head.Subject.Concerns(&e) {
			return fmt.Errorf("record %d is not about %s", e.Seq, b.Head.Subject.Principal)
		}
		return r.check(b.Signed.Checkpoint)
	})
	return b, err
}

// Compare counts the records of a bundle's subject that stand in the log in dir up to the bundle's checkpoint, and that
// from does not hold. The log should be verified for itself.
func (b *Bundle) Compare(ctx context.Context, from io.Reader, dir string) error {
	p := &prover{dir: dir}
	if err := p.open(); err != nil {
		return err
	}
	if p.head.Origin != b.Head.Origin {
		return fmt.Errorf("%s holds another log, %s", dir, p.head.Origin)
	}
	// Both are in the log's order: one pass over each, side by side.
	held := make(chan int64)
	ctx, cancel := context.WithCancel(ctx)
	read := make(chan error, 1)
	go func() {
		defer close(held)
		var again Bundle
		read <- again.read(ctx, from, func() error { return nil }, func(r ProvenRecord) error {
			select {
			case held <- r.Index:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	next, more := <-held
	err := p.find(ctx, 0, b.Head.Subject.meant, func(_ []byte, index int64) error {
		for more && next < index { // expired since it was exported
			next, more = <-held
		}
		switch {
		case index >= b.Signed.Size:
		case more && next == index:
			next, more = <-held
		default:
			b.Missing++
		}
		return nil
	})
	for err == nil && more {
		_, more = <-held
	}
	cancel()
	if readErr := <-read; err == nil {
		err = readErr
	}
	return err
}

// read goes through the lines of a bundle.
func (b *Bundle) read(ctx context.Context, from io.Reader, head func() error, each func(ProvenRecord) error) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, maxBundleLine)
	number, ended := int64(0), false
	for lines.Scan() {
		if number++; ctx.Err() != nil {
			return ctx.Err()
		}
		if ended {
			return fmt.Errorf("line %d: there is more behind the bundle's end", number)
		}
		if err := b.line(lines.Bytes(), number, &ended, head, each); err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("line %d: it is too long", number+1)
	case err != nil:
		return err
	case !ended:
		return fmt.Errorf("line %d: the bundle has no end: it was cut off", number+1)
	}
	return nil
}

func (b *Bundle) line(text []byte, number int64, ended *bool, head func() error, each func(ProvenRecord) error) error {
	if number == 1 {
		if err := strictly(text, &b.Head); err != nil {
			return errors.New("it does not begin as a bundle does")
		}
		if b.Head.Schema != BundleSchema {
			return fmt.Errorf("schema %q is none that this program knows", b.Head.Schema)
		}
		return head()
	}
	var r ProvenRecord
	if err := strictly(text, &r); err == nil {
		return each(r)
	}
	if err := strictly(text, &b.End); err != nil {
		return errors.New("it is neither a record with its proof nor the bundle's end")
	}
	*ended = true
	if b.End.Records != number-2 {
		return fmt.Errorf("it holds %d records, and its end says %d", number-2, b.End.Records)
	}
	return nil
}

func strictly(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() {
		return errors.New("more than one value")
	}
	return nil
}
