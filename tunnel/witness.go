package tunnel

import (
	"context"
	"errors"
	"fmt"
)

// A Checkpoint is what the relay shows an agent of its audit log, so that somebody outside keeps it. The tunnel carries
// it and knows nothing of what it says.
type Checkpoint struct {
	Note  string   // signed
	Proof []byte   // hashes that lead here from what the agent holds, one behind the other; empty: none yet
	Chain [][]byte // how the relay's keys name each other
}

// Witnessed is what the agent says to it.
type Witnessed struct {
	Held     string // the note that it holds now
	Conflict bool   // it was shown one that does not extend that
}

const kindConflict = "conflict"

// ShowCheckpoint shows the agent at the other end a checkpoint and returns what it holds. An agent that keeps none, or of
// an older version, does not answer: ctx ends the call.
func (s *Session) ShowCheckpoint(ctx context.Context, c Checkpoint) (Witnessed, error) {
	if !s.relay || s.Role() != RoleAgent {
		return Witnessed{}, errors.New("show checkpoint: only the relay's end of an agent's session shows one")
	}
	a, err := s.ask(ctx, controlMessage{Type: msgCheckpoint, Text: c.Note, Proof: c.Proof, Chain: c.Chain})
	if err != nil {
		return Witnessed{}, fmt.Errorf("show checkpoint: %w", err)
	}
	return Witnessed{Held: a.Text, Conflict: a.Kind == kindConflict}, nil
}

// takeCheckpoint is the agent's side.
func (s *Session) takeCheckpoint(m controlMessage) {
	if s.client.OnCheckpoint == nil {
		return
	}
	w := s.client.OnCheckpoint(Checkpoint{Note: m.Text, Proof: m.Proof, Chain: m.Chain})
	answer := controlMessage{Type: msgWitnessed, ID: m.ID, Text: w.Held}
	if w.Conflict {
		answer.Kind = kindConflict
	}
	s.answer(answer)
}
