package relay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"sync"
	"time"

	"iap/internal/audit"
	"iap/internal/guard"
)

const (
	// subjectAgain is how long decisions may refer to a subject's event: who reads
	// the log from some day on finds all that its decisions rested on within the
	// day before.
	subjectAgain = 24 * time.Hour
	// maxSubjects bounds what is remembered as written; when it is full it starts
	// anew, and some events are written twice.
	maxSubjects = 50_000
)

// subjects sees to it that the log tells what the policy knew of a principal
// when it decided, once for many decisions.
type subjects struct {
	log *audit.Log
	now func() time.Time

	written sync.Map   // subject's id → time.Time of its event
	mu      sync.Mutex // one event is written at a time, before any decision names it
	count   int        // guarded by mu; of entries in written
}

// name puts the id of the principal's facts into a decision's line, and their
// event before it if the log has none.
func (s *subjects) name(ctx context.Context, line *audit.Event, id *identity) error {
	line.Subject = id.factsID()
	now := s.now()
	if s.fresh(line.Subject, now) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fresh(line.Subject, now) {
		return nil
	}
	err := s.log.Record(ctx, audit.Event{
		Kind: audit.KindSubject, Subject: line.Subject, Facts: id.subject, Principal: line.Principal, Issuer: line.Issuer, Session: line.Session,
	})
	if err != nil {
		return err
	}
	if s.count++; s.count > maxSubjects {
		s.written.Clear()
		s.count = 1
	}
	s.written.Store(line.Subject, now)
	return nil
}

func (s *subjects) fresh(subject string, now time.Time) bool {
	at, found := s.written.Load(subject)
	return found && now.Sub(at.(time.Time)) < subjectAgain
}

// factsID is the hash of what the policy is told of the principal, short: it tells
// one subject of a log from another.
func (i *identity) factsID() string {
	i.facts.Do(func() {
		text, err := json.Marshal(i.policy)
		if err != nil {
			return // texts and a time, which always marshal; without facts nothing is guessed
		}
		sum := sha256.Sum256(text)
		i.subject, i.subjectID = string(text), hex.EncodeToString(sum[:8])
	})
	return i.subjectID
}

// resourceFacts are what a decision knew of its resource besides the name.
func resourceFacts(add func(key, value string), kind string, labels map[string]string) {
	if kind != guard.KindModel {
		add("kind", kind)
	}
	if len(labels) == 0 {
		return
	}
	values := url.Values{}
	for key, value := range labels {
		values.Set(key, value)
	}
	add("labels", values.Encode())
}
