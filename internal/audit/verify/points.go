package verify

import (
	"fmt"
	"path/filepath"

	"iap/internal/audit"
	"iap/internal/audit/checkpoint"
)

// findOrigin takes the log's name from its first checkpoint: all others, and the witnesses', must bear it too.
func (v *verifier) findOrigin(segments []audit.Segment) error {
	for _, s := range segments {
		if v.r.Origin != "" {
			return nil
		}
		p, err := openPoints(filepath.Join(v.dir, s.Name+audit.CheckpointSuffix))
		if err != nil {
			return err
		}
		p.close()
		if c, err := checkpoint.Parse(p.next); err == nil {
			v.r.Origin = c.Origin
		}
	}
	return nil
}

// points verifies the checkpoints of as many lines as were read.
func (v *verifier) points(p *points) error {
	for p.next != nil && p.size <= v.lines.Size() {
		v.point(p)
		p.advance()
	}
	return nil
}

// point verifies one checkpoint of the log's own.
func (v *verifier) point(p *points) {
	at := Problem{Kind: BadCheckpoint, File: p.name, Line: p.line}
	signed, err := v.open(p.next)
	if err == nil {
		err = v.inOrder(signed)
	}
	if err != nil {
		at.Message = err.Error()
		v.wrong(at)
		return
	}
	v.r.Checkpoints++
	v.own, v.ownKey = signed.Checkpoint, v.ring.Rank(signed.Key)
	if !v.agrees(signed.Root) {
		v.disagrees(fmt.Sprintf("the checkpoint in %s:%d", p.name, p.line))
		return
	}
	v.agreed = Problem{File: v.file, Line: v.line + 1, Record: v.number + 1}
	if !v.broken {
		v.r.Proven = Proven{Lines: signed.Size, Record: v.number, Time: signed.Time, Key: keyName(signed.Key)}
	}
}

// inOrder says what is wrong with a checkpoint behind the one before.
func (v *verifier) inOrder(s checkpoint.Signed) error {
	rank := v.ring.Rank(s.Key)
	switch {
	case s.Size < v.lines.Size():
		return fmt.Errorf("a checkpoint of %d lines stands where %d were written: it was moved or doubled", s.Size, v.lines.Size())
	case s.Expired > 0:
		return fmt.Errorf("the head of what has expired stands among checkpoints")
	case s.Origin != v.r.Origin:
		return fmt.Errorf("it is of another log, %s", s.Origin)
	case s.Size < v.own.Size || s.Size == v.own.Size && v.ring != nil && rank <= v.ownKey || !s.Time.After(v.own.Time) && v.own.Size > 0:
		return fmt.Errorf("it does not come after the one before: it was moved or doubled")
	case rank < v.ownKey:
		return fmt.Errorf("it is signed by a key that had been replaced when the one before was signed")
	}
	return nil
}

// pointsEnd finds what stands behind the segment's last line.
func (v *verifier) pointsEnd(p *points) {
	at := Problem{Kind: BadCheckpoint, File: p.name, Line: p.line, Message: p.bad}
	if p.bad != "" {
		v.wrong(at)
		return
	}
	if p.next == nil {
		return
	}
	signed, err := v.open(p.next)
	if err != nil {
		at.Message = err.Error()
		v.wrong(at)
		return
	}
	v.wrong(Problem{
		Kind: Missing, File: v.file, Line: v.line + 1, Record: v.number + 1,
		Message: fmt.Sprintf("the checkpoint in %s:%d covers %d lines, and there are %d: records were removed", p.name, p.line, signed.Size, v.lines.Size()),
	})
}
