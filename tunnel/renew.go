package tunnel

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"
)

// Refresh presents a new token for a running session, with a proof that the session's key goes with it, and returns
// until when the relay now keeps the session. The error is a *Refusal if the relay said no.
func (s *Session) Refresh(ctx context.Context, token string) (time.Time, error) {
	if s.relay || s.Role() != RoleUser {
		return time.Time{}, errors.New("refresh session: only a user's end refreshes")
	}
	hash, err := payloadHash(token)
	if err != nil {
		return time.Time{}, fmt.Errorf("refresh session: %w", err)
	}
	answer, err := s.ask(ctx, controlMessage{
		Type: msgRefresh, Token: token,
		Signature: ed25519.Sign(s.client.Key, refreshTranscript(s.transcript, hash)),
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("refresh session: %w", err)
	}
	s.mu.Lock()
	s.peer.Expires = answer.Expires
	s.mu.Unlock()
	return answer.Expires, nil
}

// takeRefresh is the relay's side: proof first, then the relay's judgement of the token.
func (s *Session) takeRefresh(m controlMessage) {
	answer := controlMessage{Type: msgRefreshed, ID: m.ID}
	expires, hash, err := s.judgeRefresh(m)
	if err != nil {
		answer.Code, answer.Text = publicly(err)
		s.log.Info("refresh refused", "err", err)
	} else {
		s.mu.Lock()
		s.peer.Expires, s.peer.TokenHash = expires, hash
		s.mu.Unlock()
		answer.Expires = expires
		s.control.nudge() // the session's end has moved
	}
	s.answer(answer)
}

func (s *Session) judgeRefresh(m controlMessage) (time.Time, []byte, error) {
	hash, err := payloadHash(m.Token)
	if err != nil {
		return time.Time{}, nil, &Refusal{Code: CodeTokenInvalid, Message: "the token is malformed"}
	}
	if !ed25519.Verify(s.peerKey, refreshTranscript(s.transcript, hash), m.Signature) {
		return time.Time{}, nil, &Refusal{Code: CodePopFailed, Message: "the proof of the session key failed"}
	}
	if s.server.Refresh == nil {
		return time.Time{}, nil, &Refusal{Code: CodeRefused, Message: "this relay refreshes no sessions"}
	}
	ctx, cancel := context.WithTimeout(s.life, callbackTimeout)
	defer cancel()
	expires, err := s.server.Refresh(ctx, s, m.Token)
	return expires, hash, err
}

// Withdraw tells the relay that the right to this session is gone, as when the provider refuses to renew its token: what runs in it
// ends in its own protocol, and then the session. A relay that does not know of this goes on; Close the session after a while.
func (s *Session) Withdraw(code Code) error {
	if s.relay || s.Role() != RoleUser {
		return errors.New("withdraw session: only a user's end withdraws")
	}
	return s.control.send(controlMessage{Type: msgWithdraw, Code: code.String()})
}

func (s *Session) receiveWithdrawal(m controlMessage) error {
	if !s.relay || s.Role() != RoleUser {
		return violation("control message of the wrong side")
	}
	if s.server.OnWithdraw != nil {
		code := knownCode(m.Code)
		s.control.work(func() { s.server.OnWithdraw(s, code) }) // with so many others queued the client's own Close has to do
	}
	return nil
}

// SetPeer replaces what Peer returns, for a relay whose Refresh changes it. Expires and TokenHash are the session's own
// business and stay.
func (s *Session) SetPeer(p Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.Expires, p.TokenHash = s.peer.Expires, s.peer.TokenHash
	s.peer = p
}

// Announce tells the relay what the agent offers now. It replaces what was announced before. The error is a *Refusal if
// the relay said no.
func (s *Session) Announce(ctx context.Context, list []Announcement) error {
	if s.relay || s.Role() != RoleAgent {
		return errors.New("announce resources: only an agent's end announces")
	}
	if _, err := s.ask(ctx, controlMessage{Type: msgAnnounce, Resources: list}); err != nil {
		return fmt.Errorf("announce resources: %w", err)
	}
	return nil
}

// announceCheck is the Kind of an announcement that only asks.
const announceCheck = "check"

// CheckAnnouncement asks the relay whether it would take the list, and offers nothing. The error is a *Refusal if it
// would not.
func (s *Session) CheckAnnouncement(ctx context.Context, list []Announcement) error {
	if s.relay || s.Role() != RoleAgent {
		return errors.New("check announcement: only an agent's end announces")
	}
	if _, err := s.ask(ctx, controlMessage{Type: msgAnnounce, Kind: announceCheck, Resources: list}); err != nil {
		return fmt.Errorf("check announcement: %w", err)
	}
	return nil
}

func (s *Session) takeAnnouncement(m controlMessage) {
	answer := controlMessage{Type: msgAnnounced, ID: m.ID}
	if m.Kind == announceCheck {
		err := error(&Refusal{Code: CodeRefused, Message: "this relay checks no announcements"})
		if s.server.CheckAnnounce != nil {
			err = s.server.CheckAnnounce(s, m.Resources)
		}
		if err != nil {
			answer.Code, answer.Text = publicly(err)
		}
		s.answer(answer)
		return
	}
	if s.server.OnAnnounce != nil {
		if err := s.server.OnAnnounce(s, m.Resources); err != nil {
			answer.Code, answer.Text = publicly(err)
			s.log.Warn("announcement refused", "err", err)
		}
	}
	if answer.Code == "" {
		s.mu.Lock()
		s.announced = m.Resources
		s.mu.Unlock()
	}
	s.answer(answer)
}

func (s *Session) answer(m controlMessage) {
	if err := s.control.send(m); err != nil {
		s.fail(&SessionError{Code: CodeTimeout, Err: err})
	}
}

// publicly is what a peer may know of err: a Refusal's text, or nothing.
func publicly(err error) (code, text string) {
	var refusal *Refusal
	if errors.As(err, &refusal) && refusal.Code != CodeNone {
		return refusal.Code.String(), refusal.Message
	}
	return CodeRefused.String(), ""
}
