package tunnel

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
)

// Rotate puts key in the place of the key that opened this session of an agent. Both sign, bound to the session and so
// to the relay, its nonce and the agent: the old key names the new one, the new one shows that it is at hand. The error
// is a *Refusal if the relay said no; after any other the relay may have done it, and the same call may be repeated.
func (s *Session) Rotate(ctx context.Context, key ed25519.PrivateKey) error {
	if s.relay || s.Role() != RoleAgent {
		return errors.New("rotate key: only an agent's end rotates")
	}
	if len(key) != ed25519.PrivateKeySize {
		return errors.New("rotate key: no new key")
	}
	next := key.Public().(ed25519.PublicKey)
	_, err := s.ask(ctx, controlMessage{
		Type: msgRotate, Key: next,
		Signature: ed25519.Sign(s.client.Key, rotateTranscript(successorLabel, s.transcript, s.hello.PublicKey, next)),
		Proof:     ed25519.Sign(key, rotateTranscript(possessionLabel, s.transcript, s.hello.PublicKey, next)),
	})
	if err != nil {
		return fmt.Errorf("rotate key: %w", err)
	}
	return nil
}

// takeRotate is the relay's side: both proofs first, then the relay's own judgement.
func (s *Session) takeRotate(m controlMessage) {
	answer := controlMessage{Type: msgRotated, ID: m.ID}
	if err := s.judgeRotate(m); err != nil {
		answer.Code, answer.Text = publicly(err)
		s.log.Warn("key rotation refused", "err", err)
	}
	s.answer(answer)
}

func (s *Session) judgeRotate(m controlMessage) error {
	next := ed25519.PublicKey(m.Key)
	if !isPublicKey(m.Key) || next.Equal(s.peerKey) {
		return &Refusal{Code: CodeProtocolError, Message: "that is no new key"}
	}
	if !ed25519.Verify(s.peerKey, rotateTranscript(successorLabel, s.transcript, s.peerKey, next), m.Signature) ||
		!ed25519.Verify(next, rotateTranscript(possessionLabel, s.transcript, s.peerKey, next), m.Proof) {
		return &Refusal{Code: CodePopFailed, Message: "the proof of the old or of the new key failed"}
	}
	if s.server.Rotate == nil {
		return &Refusal{Code: CodeRefused, Message: "this relay rotates no keys"}
	}
	ctx, cancel := context.WithTimeout(s.life, callbackTimeout)
	defer cancel()
	return s.server.Rotate(ctx, s, next)
}

// rotateTranscript is what each of both keys signs, under a label of its own.
func rotateTranscript(label string, hash, old, next []byte) []byte {
	b := appendField(nil, label)
	b = appendField(b, hash)
	b = appendField(b, old)
	return appendField(b, next)
}

// AskRotation asks the agent at the other end for a new key, and returns when it uses it. The error is a *Refusal if
// the agent said no.
func (s *Session) AskRotation(ctx context.Context) error {
	if !s.relay || s.Role() != RoleAgent {
		return errors.New("ask for a new key: only the relay's end of an agent's session asks")
	}
	if _, err := s.ask(ctx, controlMessage{Type: msgRenewKey}); err != nil {
		return fmt.Errorf("ask for a new key: %w", err)
	}
	return nil
}

// takeRenewKey is the agent's side.
func (s *Session) takeRenewKey(m controlMessage) {
	answer := controlMessage{Type: msgKeyRenewed, ID: m.ID}
	err := error(&Refusal{Code: CodeRefused, Message: "this agent does not rotate its key"})
	if s.client.OnRotate != nil {
		ctx, cancel := context.WithTimeout(s.life, rotateTimeout)
		err = s.client.OnRotate(ctx, s)
		cancel()
	}
	if err != nil {
		answer.Code, answer.Text = publicly(err)
	}
	s.answer(answer)
}

// ShowRelayKeys tells the client of the statements by which the relay's keys name each other. It does not wait for
// them to be read.
func (s *Session) ShowRelayKeys(chain [][]byte) error {
	return s.control.send(controlMessage{Type: msgRelayKeys, Chain: chain})
}

func (s *Session) takeRelayKeys(m controlMessage) {
	if s.client.OnRelayKeys != nil {
		s.client.OnRelayKeys(s.peerKey, m.Chain)
	}
}

// receiveRelay acts on what only a relay says, away from the reader.
func (s *Session) receiveRelay(m controlMessage) error {
	job := func() { s.takeRelayKeys(m) }
	allowed := !s.relay
	switch m.Type {
	case msgCheckpoint:
		job, allowed = func() { s.takeCheckpoint(m) }, !s.relay && s.Role() == RoleAgent
	case msgRenewKey:
		job, allowed = func() { s.takeRenewKey(m) }, !s.relay && s.Role() == RoleAgent
	}
	if !allowed {
		return violation("control message of the wrong side")
	}
	if !s.control.work(job) && m.Type == msgRenewKey {
		s.answer(controlMessage{Type: msgKeyRenewed, ID: m.ID, Code: CodeOverloaded.String()})
	}
	return nil
}
