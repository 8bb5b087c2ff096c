package verify

import (
	"fmt"
	"time"

	"iap/internal/audit/checkpoint"
)

// maxProblems bounds what is listed: behind the first few, more say nothing new.
const maxProblems = 20

// What is wrong, in one word for programs.
const (
	BadLine       = "bad_line"       // a line is no record, or not finished
	BadNumber     = "bad_number"     // a record does not follow the one before: removed, added, doubled or moved
	Changed       = "changed"        // a line is not the one that was hashed, or that a checkpoint covers
	Missing       = "missing"        // records or segments that a checkpoint covers are not there
	BadHashes     = "bad_hashes"     // a hash file is not its segment's
	BadCheckpoint = "bad_checkpoint" // a checkpoint is malformed, not signed, or out of its order
	BadHead       = "bad_head"       // the head of what has expired does not hold
	BadKeys       = "bad_keys"       // the keys beside the log are malformed
	Refused       = "refused"        // a witness holds a checkpoint that the log does not extend
)

// Problem is one thing that is wrong, and where.
type Problem struct {
	Kind    string `json:"kind"`
	File    string `json:"file"`
	Line    int64  `json:"line,omitempty"` // counted from 1
	Record  uint64 `json:"record,omitempty"`
	Message string `json:"message"`
}

func (p Problem) String() string {
	where := p.File
	if p.Line > 0 {
		where += fmt.Sprintf(":%d", p.Line)
	}
	if p.Record > 0 {
		where += fmt.Sprintf(" (record %d)", p.Record)
	}
	return where + ": " + p.Message
}

// Proven is how far something reaches.
type Proven struct {
	Lines  int64     `json:"lines"`  // from the first on; 0: nothing
	Record uint64    `json:"record"` // number of the last one
	Time   time.Time `json:"time"`   // when it was signed
	Key    string    `json:"key"`    // fingerprint of the key that signed; empty: not verified
}

// What became of a witness's checkpoint.
const (
	Holds   = "holds"   // the log has exactly these lines
	Older   = "older"   // it is about records that have expired: nothing can be compared
	Unknown = "unknown" // its signature could not be verified, or it is of another log
	Refuses = "refused" // the log does not extend it
)

// Witness is what one checkpoint from outside proves.
type Witness struct {
	Name   string `json:"name"` // the file
	Status string `json:"status"`
	Proven
	Message string `json:"message,omitempty"`

	note   []byte
	signed checkpoint.Signed
}

// Expired is what retention has taken.
type Expired struct {
	Through uint64    `json:"through"` // last record that is gone
	Lines   int64     `json:"lines"`
	Before  time.Time `json:"before"` // all that is gone is older
	Time    time.Time `json:"time"`   // when the head was signed
	Key     string    `json:"key"`    // that signed it; empty: not verified
}

// Report is what was found.
type Report struct {
	OK          bool      `json:"ok"` // no problems
	Dir         string    `json:"dir"`
	Origin      string    `json:"origin,omitempty"`
	KeysFrom    string    `json:"keys_from"` // given, folder (whoever could write the log could write them) or none
	Segments    int       `json:"segments"`
	First       uint64    `json:"first"` // number of the first record that is there
	Last        uint64    `json:"last"`  // number of the last
	Lines       int64     `json:"lines"` // with those that have expired
	Root        string    `json:"root"`  // of all lines
	Checkpoints int64     `json:"checkpoints"`
	Expired     *Expired  `json:"expired,omitempty"`
	Proven      Proven    `json:"proven"` // by the log's own checkpoints
	Witnesses   []Witness `json:"witnesses"`
	Tail        int64     `json:"tail"` // lines behind the last checkpoint of its own
	Problems    []Problem `json:"problems"`
	More        int64     `json:"more_problems,omitempty"` // that are not listed
	Notes       []string  `json:"notes"`
}

// Trust of the keys.
const (
	KeysGiven  = "given"
	KeysFolder = "folder"
	KeysNone   = "none"
)

func (r *Report) problem(p Problem) {
	if len(r.Problems) >= maxProblems {
		r.More++
		return
	}
	r.Problems = append(r.Problems, p)
}

func (r *Report) note(format string, args ...any) {
	if len(r.Notes) < maxProblems {
		r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
	}
}
