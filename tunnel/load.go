package tunnel

import (
	"errors"
	"fmt"
)

// A Load is what an agent works on for one resource: what runs at its upstream, and what waits for a place there.
type Load struct {
	Resource string `json:"resource"`
	Running  int    `json:"running,omitzero"`
	Queued   int    `json:"queued,omitzero"`
}

// ReportLoad tells the relay how busy the agent is. It does not wait for an answer, since there is none: the next report
// replaces this one.
func (s *Session) ReportLoad(list []Load) error {
	if s.relay || s.Role() != RoleAgent {
		return errors.New("report load: only an agent's end reports")
	}
	if err := s.control.send(controlMessage{Type: msgLoad, Loads: list}); err != nil {
		return fmt.Errorf("report load: %w", err)
	}
	return nil
}

func (s *Session) takeLoad(m controlMessage) error {
	if !s.relay || s.Role() != RoleAgent {
		return violation("control message of the wrong side")
	}
	if s.server.OnLoad != nil {
		s.server.OnLoad(s, m.Loads)
	}
	return nil
}
