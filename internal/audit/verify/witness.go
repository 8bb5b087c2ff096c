package verify

import (
	"cmp"
	"fmt"
	"slices"

	"iap/internal/audit/checkpoint"
)

// openWitnesses takes the checkpoints from outside apart. Those of other logs are passed over, unless there is none of
// this one: a log that has changed its name is none that a witness knows.
func (v *verifier) openWitnesses(notes []Note) {
	var others []string
	for _, n := range notes {
		each, err := checkpoint.Split(n.Data)
		if err != nil || len(each) == 0 {
			v.wrong(Problem{Kind: BadCheckpoint, File: n.Name, Message: checkpoint.ErrMalformed.Error()})
			continue
		}
		for _, data := range each {
			signed, err := v.open(data)
			w := Witness{Name: n.Name, Status: Unknown, note: data, signed: signed}
			w.Lines, w.Time, w.Key = signed.Size, signed.Time, keyName(signed.Key)
			if err == nil && v.r.Origin != "" && signed.Origin != v.r.Origin {
				others = append(others, fmt.Sprintf("%s: a checkpoint of %s", n.Name, signed.Origin))
				continue
			}
			if err != nil {
				w.Message = err.Error()
				v.wrong(Problem{Kind: BadCheckpoint, File: n.Name, Message: err.Error()})
			}
			v.r.Witnesses = append(v.r.Witnesses, w)
		}
	}
	for _, other := range others {
		v.r.note("%s was passed over: it is of another log", other)
	}
	if len(v.r.Witnesses) == 0 && len(others) > 0 {
		v.wrong(Problem{Kind: Refused, File: others[0], Message: fmt.Sprintf("none of the checkpoints given is of this log, %s", v.r.Origin)})
	}
	for i := range v.r.Witnesses {
		if w := &v.r.Witnesses[i]; w.Message == "" {
			v.witnesses = append(v.witnesses, w)
		}
	}
	slices.SortStableFunc(v.witnesses, func(a, b *Witness) int { return cmp.Compare(a.Lines, b.Lines) })
	v.older()
}

// older passes over witnesses of what has expired.
func (v *verifier) older() {
	for len(v.witnesses) > 0 && v.witnesses[0].Lines < v.lines.Size() {
		v.witnesses[0].Status = Older
		v.witnesses[0].Message = "the records it covers have expired: nothing is left to compare"
		v.witnesses = v.witnesses[1:]
	}
	v.meet()
}

// meet compares the witnesses of as many lines as were read.
func (v *verifier) meet() {
	for len(v.witnesses) > 0 && v.witnesses[0].Lines == v.lines.Size() {
		w := v.witnesses[0]
		v.witnesses = v.witnesses[1:]
		if v.agrees(w.signed.Root) {
			w.Status, w.Record = Holds, v.number
			if v.broken {
				w.Message = "behind it lines were changed that are told above"
			}
			continue
		}
		w.refuse(v, fmt.Sprintf("it was given another root for the first %d lines (up to record %d): the log was rewritten, whoever signed it again", w.Lines, v.number))
	}
}

func (w *Witness) refuse(v *verifier, message string) {
	w.Status, w.Message = Refuses, message
	v.wrong(Problem{Kind: Refused, File: w.Name, Record: v.number, Message: message})
}
