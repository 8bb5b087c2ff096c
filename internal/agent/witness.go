package agent

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"iap/auth"
	"iap/internal/audit/checkpoint"
	"iap/internal/audit/tree"
	"iap/internal/relaykey"
	"iap/tunnel"
)

const (
	maxWitnessed = 16                   // logs of relays behind one name
	forgetAfter  = 180 * 24 * time.Hour // a log that nobody has shown for so long may give way to another
	maxWitness   = 1 << 20              // bytes of the file
)

// Witnessed is what the agent holds of one relay's audit log: the latest checkpoint it was shown that extends all
// before. It proves to anybody what the log said up to there, whatever becomes of the relay.
type Witnessed struct {
	Origin     string    `json:"origin"` // the log's name
	Checkpoint string    `json:"checkpoint"`
	Kept       time.Time `json:"kept"` // when it was shown

	// Refused is the first checkpoint that does not extend the one held. Both together prove that the log was rolled
	// back or rewritten.
	Refused *RefusedCheckpoint `json:"refused,omitempty"`
}

// RefusedCheckpoint is evidence.
type RefusedCheckpoint struct {
	Checkpoint string    `json:"checkpoint"`
	Held       string    `json:"held"` // what was held then
	Time       time.Time `json:"time"` // when it was shown
	Why        string    `json:"why"`
}

// witness keeps checkpoints in a file beside the key file.
type witness struct {
	file string
	log  *slog.Logger
	pin  *pin // whom to believe

	mu   sync.Mutex
	logs []Witnessed // guarded by mu
}

func openWitness(cfg *Config, p *pin, log *slog.Logger) (*witness, error) {
	w := &witness{file: strings.TrimSuffix(cfg.KeyFile, ".key") + ".witness", pin: p, log: log}
	data, err := os.ReadFile(w.file)
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil
	}
	if err == nil && len(data) > maxWitness {
		err = errors.New("too long")
	}
	if err == nil {
		err = json.Unmarshal(data, &w.logs)
	}
	if err == nil && len(w.logs) > maxWitnessed {
		err = errors.New("it holds too many logs")
	}
	if err != nil {
		return nil, fmt.Errorf("read what this agent has witnessed of the relay's audit log, %s: %w; keep the file for an auditor and move it away", w.file, err)
	}
	return w, nil
}

// take judges a checkpoint that the relay shows, and keeps it if it extends what is held.
func (w *witness) take(c tunnel.Checkpoint) tunnel.Witnessed {
	next, err := w.open(c)
	if err != nil {
		w.log.Warn("the relay shows a checkpoint of its audit log that cannot be verified", "error", err)
		return tunnel.Witnessed{}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.logs, func(l Witnessed) bool { return l.Origin == next.Origin })
	if i < 0 {
		return w.begin(next)
	}
	held := &w.logs[i]
	before, err := checkpoint.Parse([]byte(held.Checkpoint))
	if err == nil {
		err = checkpoint.Judge(before, next.Checkpoint, hashes(c.Proof))
	}
	answer := tunnel.Witnessed{Held: held.Checkpoint}
	switch {
	case errors.Is(err, checkpoint.ErrConflict):
		w.refuse(held, next, err)
		answer.Conflict = true
	case err == nil && held.Checkpoint != string(next.Note):
		held.Checkpoint, held.Kept = string(next.Note), time.Now().UTC()
		w.save()
		answer.Held = held.Checkpoint
	}
	return answer
}

// open verifies the signature by the key that is pinned, or one that came after it.
func (w *witness) open(c tunnel.Checkpoint) (checkpoint.Signed, error) {
	pin := w.pin.current()
	if len(c.Chain) > relaykey.MaxChain {
		return checkpoint.Signed{}, relaykey.ErrTooLong
	}
	var f checkpoint.KeyFile
	for _, encoded := range append([][]byte{pin.Next}, c.Chain...) {
		if link, err := relaykey.Parse(encoded); err == nil {
			f.Chain = append(f.Chain, link)
		}
	}
	ring, err := checkpoint.Follow([]checkpoint.Anchor{checkpoint.AnchorOf(pin.Key)}, f)
	if err != nil {
		return checkpoint.Signed{}, err
	}
	at := max(0, ring.Rank(ed25519.PublicKey(pin.Key)))
	return checkpoint.Open([]byte(c.Note), ring[at:])
}

// begin keeps the first checkpoint of a log: from there on it is held to it. w.mu is held.
func (w *witness) begin(next checkpoint.Signed) tunnel.Witnessed {
	if len(w.logs) > 0 {
		w.log.Warn("the relay shows an audit log of a name that this agent has not seen before", "log", next.Origin, "held", w.logs[0].Origin)
	}
	if len(w.logs) >= maxWitnessed {
		oldest := slices.IndexFunc(w.logs, func(l Witnessed) bool { return l.Refused == nil && time.Since(l.Kept) > forgetAfter })
		if oldest < 0 {
			w.log.Error("no more audit logs can be witnessed: this one is not", "log", next.Origin, "file", w.file)
			return tunnel.Witnessed{}
		}
		w.logs = slices.Delete(w.logs, oldest, oldest+1)
	}
	w.logs = append(w.logs, Witnessed{Origin: next.Origin, Checkpoint: string(next.Note), Kept: time.Now().UTC()})
	w.save()
	return tunnel.Witnessed{Held: string(next.Note)}
}

// refuse keeps what was shown as evidence, and what is held as it is. w.mu is held.
func (w *witness) refuse(held *Witnessed, next checkpoint.Signed, why error) {
	w.log.Error("THE RELAY'S AUDIT LOG DOES NOT EXTEND WHAT THIS AGENT HAS WITNESSED: it was rolled back or rewritten; have an auditor compare: iap-agent witness",
		"log", held.Origin, "error", why, "file", w.file)
	if held.Refused == nil {
		held.Refused = &RefusedCheckpoint{Checkpoint: string(next.Note), Held: held.Checkpoint, Time: time.Now().UTC(), Why: why.Error()}
		w.save()
	}
}

func (w *witness) save() {
	data, err := json.MarshalIndent(w.logs, "", "  ")
	if err == nil {
		err = auth.WriteFile(w.file, append(data, '\n'))
	}
	if err != nil { // it is shown again, and held in memory until then
		w.log.Warn("the checkpoint of the relay's audit log is not kept", "file", w.file, "error", err)
	}
}

func (w *witness) all() []Witnessed {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.logs)
}

// hashes takes a proof apart; one that is none proves nothing.
func hashes(proof []byte) (all []tree.Hash) {
	for ; len(proof) >= len(tree.Hash{}); proof = proof[len(tree.Hash{}):] {
		all = append(all, tree.Hash(proof[:len(tree.Hash{})]))
	}
	return all
}

// Witnessing returns what the agent with this configuration file holds of its relays' audit logs.
func Witnessing(file string) ([]Witnessed, error) {
	cfg, err := LoadConfig(file)
	if err != nil {
		return nil, err
	}
	a, err := New(cfg, nil)
	if err != nil {
		return nil, err
	}
	return a.witness.all(), nil
}
