package verify

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"

	"iap/internal/audit"
	"iap/internal/audit/checkpoint"
	"iap/internal/audit/tree"
	"iap/internal/relaykey"
)

// Note is a checkpoint from outside.
type Note struct {
	Name string // where it comes from
	Data []byte
}

// Options say what to verify and what is trusted.
type Options struct {
	Dir       string
	Anchors   []checkpoint.Anchor // the relay's keys that the auditor trusts; none: those beside the log, which proves less
	Links     []relaykey.Link     // how the relay's keys name each other, beside what stands in the folder
	Witnesses []Note
}

// ErrNoLog: there is nothing to verify.
var ErrNoLog = errors.New("holds no audit log: give the folder with the files audit-….jsonl")

// verifier is one pass over a log.
type verifier struct {
	dir       string
	r         *Report
	ring      checkpoint.Keyring
	witnesses []*Witness // that the pass has not come to, by size

	lines   *tree.Range // by the lines
	other   *tree.Range // by the hash files, from the first line on that differs; nil: none does
	suspect Problem     // that line
	lost    bool        // the tree is not the checkpoints' any more: roots behind tell nothing
	broken  bool        // something is wrong: nothing behind is called proven

	number  uint64 // of the last record
	file    string // of the line that was read last
	line    int64
	agreed  Problem // where the last checkpoint agreed, as the beginning of what is in doubt
	own     checkpoint.Checkpoint
	ownKey  int // rank of the key that signed it
	started bool
}

// Run verifies a log. An error means that it could not be read; what is wrong with it stands in the report.
func Run(ctx context.Context, o Options) (*Report, error) {
	v := &verifier{dir: o.Dir, r: &Report{Dir: o.Dir, Witnesses: []Witness{}, Problems: []Problem{}, Notes: []string{}}, ownKey: -1}
	segments, err := audit.Segments(o.Dir)
	if err != nil {
		return nil, err
	}
	if len(segments) == 0 {
		return nil, fmt.Errorf("%s %w", o.Dir, ErrNoLog)
	}
	v.openKeys(o)
	if segments, err = v.begin(segments); err != nil {
		return nil, err
	}
	if err := v.findOrigin(segments); err != nil {
		return nil, err
	}
	v.openWitnesses(o.Witnesses)
	for i, s := range segments {
		if err := v.segment(ctx, s, i+1 == len(segments)); err != nil {
			return nil, err
		}
	}
	v.end()
	return v.r, nil
}

// openKeys finds out whose signatures count.
func (v *verifier) openKeys(o Options) {
	f, there, err := audit.ReadKeys(o.Dir)
	if err != nil {
		v.wrong(Problem{Kind: BadKeys, File: audit.KeysFile, Message: err.Error()})
	}
	beside := f.Key
	f.Chain = append(slices.Clone(o.Links), f.Chain...)
	anchors := o.Anchors
	v.r.KeysFrom = KeysGiven
	if len(anchors) == 0 && len(beside) > 0 {
		v.r.KeysFrom = KeysFolder
		anchors = []checkpoint.Anchor{checkpoint.AnchorOf(beside)}
	}
	if len(anchors) == 0 {
		v.r.KeysFrom = KeysNone
		return
	}
	if v.ring, err = checkpoint.Follow(anchors, f); err != nil {
		v.wrong(Problem{Kind: BadKeys, File: audit.KeysFile, Message: err.Error()})
		return
	}
	if there && len(beside) > 0 && v.ring.Rank(beside) < 0 {
		v.wrong(Problem{Kind: BadKeys, File: audit.KeysFile, Message: fmt.Sprintf("the key %s beside the log does not follow from the key that is trusted", relaykey.ID(beside))})
	}
}

// begin takes up what retention left, and leaves out segments that it was about to delete.
func (v *verifier) begin(segments []audit.Segment) ([]audit.Segment, error) {
	e, before, there, err := audit.ReadExpired(v.dir)
	v.lines = new(tree.Range)
	if !there {
		return segments, nil
	}
	if err != nil {
		v.wrong(Problem{Kind: BadHead, File: audit.ExpiredFile, Message: err.Error()})
		v.lost, v.number = true, segments[0].First-1
		return segments, nil
	}
	head, err := v.open([]byte(e.Head))
	if err != nil {
		v.wrong(Problem{Kind: BadHead, File: audit.ExpiredFile, Message: "the head of what has expired: " + err.Error()})
	}
	v.r.Expired = &Expired{Through: e.Through, Lines: before.Size(), Before: head.Before, Time: head.Time, Key: keyName(head.Key)}
	v.r.Origin, v.lines, v.number = head.Origin, before, e.Through
	for len(segments) > 1 && segments[0].First <= e.Through {
		v.r.note("%s has expired and is not deleted yet: it was not looked at", segments[0].Name)
		segments = segments[1:]
	}
	return segments, nil
}

// open reads a checkpoint and verifies its signature, if there is a key to do it with.
func (v *verifier) open(note []byte) (checkpoint.Signed, error) {
	if v.r.KeysFrom == KeysNone {
		c, err := checkpoint.Parse(note)
		return checkpoint.Signed{Checkpoint: c, Note: note}, err
	}
	return checkpoint.Open(note, v.ring)
}

func keyName(key ed25519.PublicKey) string {
	if key == nil {
		return ""
	}
	return relaykey.ID(key)
}

func (v *verifier) wrong(p Problem) {
	v.broken = true
	v.r.problem(p)
}

// agrees holds a root against the tree of the lines read so far. If lines and hash files differ it tells which of them
// was changed.
func (v *verifier) agrees(root tree.Hash) bool {
	switch {
	case v.lost:
		return false
	case v.lines.Root() == root:
		if v.other != nil {
			v.suspect.Kind, v.suspect.File = BadHashes, v.suspect.File+audit.HashSuffix
			v.suspect.Message = fmt.Sprintf("the hash of line %d is not the line's; the checkpoints agree with the line", v.suspect.Line)
			v.suspect.Line = 0
			v.wrong(v.suspect)
			v.other = nil
		}
		return true
	case v.other != nil && v.other.Root() == root:
		v.wrong(v.suspect)
		v.lines, v.other = v.other, nil
		return true
	}
	return false
}

// disagrees says where the change must be: between the last checkpoint that agreed and here.
func (v *verifier) disagrees(by string) {
	if v.lost {
		return
	}
	p := v.suspect
	if v.other == nil {
		p = Problem{Kind: Changed, File: v.agreed.File, Line: v.agreed.Line, Record: v.agreed.Record}
		p.Message = fmt.Sprintf("the records from here to %d are not those that %s covers", v.number, by)
	}
	v.wrong(p)
	v.lost, v.other = true, nil
}

// end says what stands behind the last checkpoint.
func (v *verifier) end() {
	if v.other != nil {
		v.suspect.Message += ", and no checkpoint behind it tells which of them was changed"
		v.wrong(v.suspect)
	}
	for _, w := range v.witnesses {
		w.refuse(v, fmt.Sprintf("it was given %d lines; there are %d: records were removed, or an old copy was put in their place", w.Lines, v.lines.Size()))
	}
	v.r.Last, v.r.Lines, v.r.Root = v.number, v.lines.Size(), v.lines.Root().String()
	v.r.Tail = v.r.Lines - v.r.Proven.Lines
	if v.r.Expired != nil {
		v.r.Tail = min(v.r.Tail, v.r.Lines-v.r.Expired.Lines)
	}
	v.r.OK = len(v.r.Problems) == 0
}
