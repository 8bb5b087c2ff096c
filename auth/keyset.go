package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Why a signature could not be confirmed.
var (
	errNoKeys       = errors.New("no keys of the issuer are at hand")
	errUnknownKey   = errors.New("no key of the issuer has this id and algorithm")
	errBadSignature = errors.New("signature does not verify")
)

// keySet holds the keys of one issuer. Unlike go-oidc's RemoteKeySet it forgets
// keys the provider removed, and fetches at most once in keysMinInterval however
// many unknown key ids arrive. A failed fetch keeps the old keys.
//
// All fetching is done by run, one goroutine; verifiers only ask for it.
type keySet struct {
	issuer string
	url    string // of the keys; empty: as discovery says
	file   string // in place of both; may be empty
	client *http.Client
	log    *slog.Logger
	wake   chan struct{} // capacity 1: somebody wants a fetch
	ended  chan struct{} // closed when run returns

	mu       sync.Mutex
	keys     []verifyKey
	loaded   time.Time     // of keys; zero: never
	failures int           // fetches failed in a row
	earliest time.Time     // no fetch before
	fetching bool          // run is at it
	finished chan struct{} // closed and replaced at the end of each fetch
	unknown  map[string]time.Time
}

func newKeySet(c IssuerConfig, log *slog.Logger) *keySet {
	return &keySet{
		issuer: c.URL, url: c.KeysURL, file: c.KeysFile, client: newClient(c.HTTPClient, providerTimeout), log: log,
		wake: make(chan struct{}, 1), ended: make(chan struct{}), finished: make(chan struct{}),
		unknown: make(map[string]time.Time),
		// Until the first fetch ends, whoever asks waits for it.
		fetching: true,
	}
}

// run fetches at once, then on the timer and on demand, until ctx ends.
func (s *keySet) run(ctx context.Context) {
	defer close(s.ended)
	for {
		s.refresh(ctx)
		if !s.pause(ctx) {
			return
		}
	}
}

// pause waits for the next fetch: after a success the refresh interval, after a
// failure the back-off, and never less than the minimum even when woken.
func (s *keySet) pause(ctx context.Context) bool {
	s.mu.Lock()
	earliest, interval := s.earliest, keysRefresh
	if s.failures > 0 {
		interval = min(keysRetryMin<<min(s.failures-1, 10), keysRetryMax)
	}
	s.mu.Unlock()
	timer := time.NewTimer(max(interval, time.Until(earliest)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	case <-s.wake:
	}
	timer.Reset(time.Until(earliest))
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// refresh asks the provider for its document and its keys.
func (s *keySet) refresh(ctx context.Context) {
	s.mu.Lock()
	s.fetching = true
	s.earliest = time.Now().Add(keysRetryMin)
	s.mu.Unlock()

	keys, err := s.fetch(ctx)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetching = false
	close(s.finished)
	s.finished = make(chan struct{})
	if err != nil {
		s.failures++
		if ctx.Err() == nil {
			s.log.Warn("keys of the issuer not refreshed", "issuer", s.issuer, "failures", s.failures, "error", err)
		}
		return
	}
	s.keys, s.loaded, s.failures = keys, time.Now(), 0
}

func (s *keySet) fetch(ctx context.Context) ([]verifyKey, error) {
	if s.file != "" {
		return s.read()
	}
	address, err := s.address(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.earliest = time.Now().Add(keysMinInterval)
	s.mu.Unlock()
	body, err := fetch(ctx, s.client, address)
	if err != nil {
		return nil, err
	}
	return parseKeySet(body)
}

// address is where the keys are: as configured, or as the provider says.
func (s *keySet) address(ctx context.Context) (string, error) {
	if s.url != "" {
		return s.url, nil
	}
	m, err := discover(ctx, s.client, s.issuer)
	if err != nil {
		return "", err
	}
	if m.KeysURL == "" {
		return "", fmt.Errorf("discover issuer %q: no jwks_uri", s.issuer)
	}
	return m.KeysURL, nil
}

// read takes the keys from the file, for a provider that the relay cannot reach.
func (s *keySet) read() ([]verifyKey, error) {
	f, err := os.Open(s.file)
	if err != nil {
		return nil, fmt.Errorf("read keys of %q: %w", s.issuer, err)
	}
	defer f.Close()
	body, err := readBounded(f, s.file, maxDocumentBytes)
	if err != nil {
		return nil, fmt.Errorf("read keys of %q: %w", s.issuer, err)
	}
	return parseKeySet(body)
}

// verify confirms the signature with the key the header names, fetching the keys
// anew if that is unknown and a fetch is due. It returns the payload.
func (s *keySet) verify(ctx context.Context, raw string, h header) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(h.algorithm)})
	if err != nil {
		return nil, fmt.Errorf("read signature: %w", err)
	}
	candidates, err := s.find(h)
	if len(candidates) == 0 && s.await(ctx, h.keyID) {
		candidates, err = s.find(h)
	}
	if err != nil {
		return nil, err
	}
	if len(candidates) == 0 {
		return nil, s.missing(h.keyID)
	}
	for _, k := range candidates {
		if payload, err := jws.Verify(k.public); err == nil {
			return payload, nil
		}
	}
	return nil, errBadSignature
}

// find returns the keys that may have made a signature: those of the header's id, or
// all if it has none, at most maxKeysTried.
func (s *keySet) find(h header) ([]verifyKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loaded.IsZero() || time.Since(s.loaded) > keysMaxAge {
		return nil, errNoKeys
	}
	var found []verifyKey
	for _, k := range s.keys {
		if (h.keyID == "" || k.id == h.keyID) && k.fits(h.algorithm) && len(found) < maxKeysTried {
			found = append(found, k)
		}
	}
	return found, nil
}

// await asks for a fetch and waits for its end. It returns false at once when the
// provider lately did not know the id or was asked too recently; then the fetch is
// only scheduled, and a person's next attempt finds its result.
func (s *keySet) await(ctx context.Context, keyID string) bool {
	s.mu.Lock()
	if until, ok := s.unknown[keyID]; ok && time.Now().Before(until) && !s.loaded.IsZero() {
		s.mu.Unlock()
		return false
	}
	finished, fetching, due := s.finished, s.fetching, !time.Now().Before(s.earliest)
	s.mu.Unlock()
	if !fetching {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	if !fetching && !due {
		return false
	}
	select {
	case <-finished:
		return true
	case <-ctx.Done():
		return false
	case <-s.ended:
		return false
	}
}

// missing notes an id the provider does not have. The memory is bounded: a flood of
// ids empties it, which costs at most the one fetch in keysMinInterval.
func (s *keySet) missing(keyID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures > 0 {
		return errNoKeys // the provider may have it, but cannot be asked
	}
	if len(s.unknown) >= maxUnknownKeys {
		clear(s.unknown)
	}
	s.unknown[keyID] = time.Now().Add(unknownKeyMemory)
	return errUnknownKey
}
