package auth

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

const joinPrefix = "iapjoin1."

// JoinToken lets one agent register once. It is a secret until it is used.
type JoinToken struct {
	Relay        string         `json:"relay"`          // host[:port] as agents dial it
	ID           string         `json:"id"`             // names the token in the relay's state
	Secret       []byte         `json:"secret"`         // 16 to 64 bytes; the relay keeps only SecretHash
	RelayKeyHash []byte         `json:"relay_key_hash"` // KeyHash of the relay's key, which the agent pins
	Expires      time.Time      `json:"expires"`
	Resources    []JoinResource `json:"resources"`
}

// JoinResource is a resource the agent may announce.
type JoinResource struct {
	Name   string            `json:"name"`
	Kind   string            `json:"kind"` // model, http or tcp
	Labels map[string]string `json:"labels,omitempty"`
}

// Encode returns the token's text, "iapjoin1." and base64url of its JSON. It does not
// check the token: Check does, and ParseJoinToken refuses what Check refuses.
func (t JoinToken) Encode() string {
	data, err := json.Marshal(t, json.Deterministic(true))
	if err != nil {
		// Strings that are no UTF-8, and nothing else; ParseJoinToken refuses "".
		return ""
	}
	return joinPrefix + strictBase64.EncodeToString(data)
}

// ParseJoinToken reads what Encode wrote and nothing else: one spelling, no unknown
// or repeated members, everything within bounds. Its errors never quote the token.
func ParseJoinToken(text string) (JoinToken, error) {
	text = strings.TrimSpace(text)
	body, ok := strings.CutPrefix(text, joinPrefix)
	if !ok || len(text) > maxJoinToken {
		return JoinToken{}, fmt.Errorf("read join token: it does not begin with %q or is too long", joinPrefix)
	}
	data, err := decodePart(body)
	if err != nil {
		return JoinToken{}, errors.New("read join token: damaged; copy all of it")
	}
	var t JoinToken
	if err := json.Unmarshal(data, &t, json.RejectUnknownMembers(true)); err != nil {
		return JoinToken{}, errors.New("read join token: damaged; copy all of it")
	}
	if err := t.Check(); err != nil {
		return JoinToken{}, fmt.Errorf("read join token: %w", err)
	}
	return t, nil
}

var (
	joinID    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)
	joinName  = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)
	joinHost  = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,252})$`)
	joinLabel = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/-]{0,62})$`)
)

// Check says what of the token is out of bounds. Expiry is the relay's to judge.
func (t JoinToken) Check() error {
	switch {
	case !validRelay(t.Relay):
		return errors.New("relay is no host or host:port")
	case !joinID.MatchString(t.ID):
		return errors.New("id is not made of lower-case letters, digits and '-'")
	case len(t.Secret) < 16 || len(t.Secret) > 64:
		return errors.New("secret is not 16 to 64 bytes")
	case len(t.RelayKeyHash) != sha256.Size:
		return errors.New("relay_key_hash is no SHA-256")
	case t.Expires.IsZero():
		return errors.New("expires is missing")
	case len(t.Resources) == 0 || len(t.Resources) > maxJoinResources:
		return fmt.Errorf("resources: %d, not 1 to %d", len(t.Resources), maxJoinResources)
	}
	seen := make(map[string]bool)
	for n, r := range t.Resources {
		if err := r.check(); err != nil {
			return fmt.Errorf("resource %d: %w", n+1, err)
		}
		if seen[r.Name] {
			return fmt.Errorf("resource %d: its name occurs twice", n+1)
		}
		seen[r.Name] = true
	}
	return nil
}

func (r JoinResource) check() error {
	switch {
	case !joinName.MatchString(r.Name):
		return errors.New("name is not made of lower-case letters, digits, '.', '_' and '-'")
	case !slices.Contains([]string{"model", "http", "tcp"}, r.Kind):
		return errors.New("kind is none of model, http, tcp")
	case len(r.Labels) > maxJoinLabels:
		return fmt.Errorf("more than %d labels", maxJoinLabels)
	}
	for k, v := range r.Labels {
		if !joinLabel.MatchString(k) || (v != "" && !joinLabel.MatchString(v)) {
			return errors.New("a label is not made of letters, digits, '.', '_', '/' and '-'")
		}
	}
	return nil
}

func validRelay(relay string) bool {
	host := relay
	if strings.Contains(relay, ":") {
		h, port, err := net.SplitHostPort(relay)
		n, perr := strconv.ParseUint(port, 10, 16)
		if err != nil || perr != nil || n == 0 {
			return false
		}
		host = h
	}
	return joinHost.MatchString(host) || net.ParseIP(host) != nil
}

// SecretHash is what the relay stores and compares: a state file that leaks lets
// nobody join.
func (t JoinToken) SecretHash() []byte {
	sum := sha256.Sum256(signedBytes(domainJoinSecret, []byte(t.ID), t.Secret))
	return sum[:]
}

// JoinRequestBytes is what an agent signs with its new key to register: the relay as
// dialled, the token used, the id and key it will have, and the relay's fresh nonce.
func JoinRequestBytes(relay, tokenID, agentID string, agent ed25519.PublicKey, nonce []byte) []byte {
	return signedBytes(domainJoinRequest, []byte(relay), []byte(tokenID), []byte(agentID), agent, nonce)
}

// JoinReplyBytes is what the relay signs with its key to confirm the same, and what
// the agent verifies with the key whose hash its join token carries.
func JoinReplyBytes(relay, tokenID, agentID string, agent, relayKey ed25519.PublicKey, nonce []byte) []byte {
	return signedBytes(domainJoinReply, []byte(relay), []byte(tokenID), []byte(agentID), agent, relayKey, nonce)
}
