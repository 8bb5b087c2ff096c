package verify

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"

	"iap/internal/audit"
	"iap/internal/audit/checkpoint"
	"iap/internal/audit/tree"
)

// Bounds of a proof.
const (
	maxProven = 64      // records of one proof: a request has few
	MaxProof  = 4 << 20 // bytes of a proof file
)

// Proof shows that records stand in a log, to whoever trusts the relay's key. docs/audit.md says how to check one without
// this program.
type Proof struct {
	Schema     string             `json:"schema"` // iap-audit-proof/v1
	Origin     string             `json:"origin"`
	Checkpoint string             `json:"checkpoint"` // the signed note
	Keys       checkpoint.KeyFile `json:"keys"`       // how the key that signed follows from others; no secret
	Records    []ProvenRecord     `json:"records"`
}

// ProvenRecord is a line and the hashes that lead from it to the checkpoint's root (RFC 6962, section 2.1.1).
type ProvenRecord struct {
	Index  int64       `json:"index"` // lines before it
	Line   string      `json:"line"`  // without its newline
	Hashes []tree.Hash `json:"hashes"`
}

// ProofSchema names the form of a proof.
const ProofSchema = "iap-audit-proof/v1"

// Why there is no proof.
var (
	ErrNoRecord  = errors.New("no such record in the log")
	ErrNotSigned = errors.New("no checkpoint covers the record yet: the relay signs one every ten seconds")
	ErrNoHashes  = tree.ErrNoHashes
)

// Prove makes the proof of a record, named by its number or by its request: then of every record of that request.
func Prove(ctx context.Context, dir, id string) (*Proof, error) {
	p := &prover{dir: dir}
	var seq uint64
	if n, err := strconv.ParseUint(id, 10, 64); err == nil {
		seq = n
	}
	if err := p.open(); err != nil {
		return nil, err
	}
	proof := &Proof{Schema: ProofSchema, Origin: p.head.Origin, Checkpoint: string(p.note)}
	proof.Keys, _, _ = audit.ReadKeys(dir) // who checks may know the key anyway
	err := p.find(ctx, seq, func(line []byte) bool { return meant(line, id, seq) }, func(line []byte, index int64) error {
		if len(proof.Records) >= maxProven {
			return fmt.Errorf("more than %d records of %q: name one by its number", maxProven, id)
		}
		r, err := p.prove(line, index)
		proof.Records = append(proof.Records, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(proof.Records) == 0 {
		return nil, fmt.Errorf("%q: %w", id, ErrNoRecord)
	}
	return proof, proof.check(p.head)
}

// prover finds records and their hashes in a folder.
type prover struct {
	dir   string
	store *tree.Store
	parts []audit.Segment
	first []int64 // lines before each of them
	note  []byte  // the last checkpoint
	head  checkpoint.Checkpoint
}

func (p *prover) open() error {
	segments, err := audit.Segments(p.dir)
	if err != nil {
		return err
	}
	if len(segments) == 0 {
		return fmt.Errorf("%s %w", p.dir, ErrNoLog)
	}
	expired, before, _, err := audit.ReadExpired(p.dir)
	if err != nil {
		return err
	}
	p.store = tree.NewStore(before)
	for i, s := range segments {
		if s.First <= expired.Through {
			continue
		}
		path := filepath.Join(p.dir, s.Name+audit.HashSuffix)
		lines, err := tree.FileLines(path, p.store.Size(), i+1 == len(segments))
		if err != nil {
			return fmt.Errorf("hashes of %s: %w; the relay makes them anew when it starts", s.Name, err)
		}
		p.parts, p.first = append(p.parts, s), append(p.first, p.store.Size())
		p.store.Put(path, lines)
	}
	for _, s := range p.parts {
		if err := p.lastNote(filepath.Join(p.dir, s.Name+audit.CheckpointSuffix)); err != nil {
			return err
		}
	}
	if p.note == nil {
		return ErrNotSigned
	}
	return nil
}

// lastNote takes the last checkpoint of a file.
func (p *prover) lastNote(path string) error {
	points, err := openPoints(path)
	if err != nil || points.f == nil {
		return err
	}
	defer points.close()
	for points.next != nil {
		p.note = points.next
		points.advance()
	}
	if p.note != nil {
		p.head, err = checkpoint.Parse(p.note)
	}
	return err
}

// find hands over the lines that are meant, with how many stand before them: of all segments, or of the one that holds
// number seq.
func (p *prover) find(ctx context.Context, seq uint64, meant func(line []byte) bool, each func(line []byte, index int64) error) error {
	for i, s := range p.parts {
		if seq > 0 && (s.First > seq || i+1 < len(p.parts) && p.parts[i+1].First <= seq) {
			continue
		}
		if err := p.findIn(ctx, s, p.first[i], meant, each); err != nil {
			return err
		}
	}
	return nil
}

func (p *prover) findIn(ctx context.Context, s audit.Segment, index int64, meant func([]byte) bool, each func([]byte, int64) error) error {
	f, err := os.Open(filepath.Join(p.dir, s.Name))
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, audit.MaxLine)
	for at := index; ; at++ {
		if at%lookEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		text, err := r.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) {
			text = nil
			_, err = r.ReadSlice('\n')
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !meant(text) {
			continue
		}
		if err := each(bytes.TrimSuffix(text, []byte("\n")), at); err != nil {
			return err
		}
	}
}

// meant says whether a line is the record of that number, or one of that request.
func meant(text []byte, id string, seq uint64) bool {
	if seq == 0 && !bytes.Contains(text, []byte(id)) {
		return false
	}
	e, err := audit.Parse(text)
	return err == nil && (seq > 0 && e.Seq == seq || seq == 0 && e.Request == id)
}

// prove leads from a line to the checkpoint.
func (p *prover) prove(line []byte, index int64) (ProvenRecord, error) {
	if index >= p.head.Size {
		return ProvenRecord{}, fmt.Errorf("line %d: %w", index+1, ErrNotSigned)
	}
	hashes, err := p.store.ProveLine(p.head.Size, index)
	return ProvenRecord{Index: index, Line: string(line), Hashes: hashes}, err
}

// ReadProof reads a proof file.
func ReadProof(data []byte) (*Proof, error) {
	var p Proof
	if len(data) > MaxProof {
		return nil, errors.New("read proof: too long")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil || d.More() {
		return nil, errors.New("read proof: malformed")
	}
	if p.Schema != ProofSchema {
		return nil, fmt.Errorf("read proof: schema %q is none that this program knows", p.Schema)
	}
	if len(p.Records) == 0 || len(p.Records) > maxProven {
		return nil, errors.New("read proof: no records, or too many")
	}
	return &p, nil
}

// Check verifies the proof by keys that somebody trusts.
func (p *Proof) Check(anchors []checkpoint.Anchor) (checkpoint.Signed, error) {
	signed, err := trusted(p.Keys, p.Origin, p.Checkpoint, anchors)
	if err != nil {
		return signed, err
	}
	return signed, p.check(signed.Checkpoint)
}

// trusted opens a proof's checkpoint by keys that somebody trusts, and those that follow from them.
func trusted(keys checkpoint.KeyFile, origin, text string, anchors []checkpoint.Anchor) (checkpoint.Signed, error) {
	if len(keys.Chain) > checkpoint.MaxLinks {
		return checkpoint.Signed{}, errors.New("the proof has too many statements of keys")
	}
	for _, l := range keys.Chain {
		if err := l.Verify(); err != nil {
			return checkpoint.Signed{}, fmt.Errorf("the proof's statement of keys %d: %w", l.Number, err)
		}
	}
	ring, err := checkpoint.Follow(anchors, keys)
	if err != nil {
		return checkpoint.Signed{}, err
	}
	signed, err := checkpoint.Open([]byte(text), ring)
	if err != nil {
		return signed, fmt.Errorf("the proof's checkpoint: %w", err)
	}
	if signed.Origin != origin {
		return signed, fmt.Errorf("the proof's checkpoint is of another log, %s", signed.Origin)
	}
	return signed, nil
}

func (p *Proof) check(c checkpoint.Checkpoint) error {
	for _, r := range p.Records {
		if err := r.check(c); err != nil {
			return err
		}
	}
	return nil
}

// check says whether the record's hashes lead to the checkpoint's root.
func (r ProvenRecord) check(c checkpoint.Checkpoint) error {
	if r.Index < 0 || r.Index >= c.Size || len(r.Hashes) > checkpoint.MaxProof || tlog.CheckRecord(r.Hashes, c.Size, c.Root, r.Index, tree.Leaf([]byte(r.Line))) != nil {
		return fmt.Errorf("line %d is not proven: its hashes do not lead to the checkpoint's root", r.Index+1)
	}
	return nil
}
