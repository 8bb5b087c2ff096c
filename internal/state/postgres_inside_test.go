package state

import (
	"errors"
	"log/slog"
	"testing"
	"time"
)

func TestUpperBoundOfAPrefix(t *testing.T) {
	for prefix, want := range map[string]string{
		"": "", "a": "b", "a/": "a0", "é": "ê", "\ud7ff": "\ue000", "a\U0010ffff": "b", "\U0010ffff": "",
	} {
		if got := above(prefix); got != want {
			t.Errorf("above(%q) is %q, want %q", prefix, got, want)
		}
	}
}

// TestConnectionToAnotherMachineIsVerified reads what the driver would do with each URL.
func TestConnectionToAnotherMachineIsVerified(t *testing.T) {
	t.Setenv("PGSSLMODE", "")
	for url, want := range map[string]struct{ tls, name bool }{
		"postgres://u@db.example/iap":                            {true, true},
		"postgres://u@a.example,b.example/iap":                   {true, true},
		"postgres://u@127.0.0.1/iap":                             {},
		"postgres:///iap?host=/run/postgresql":                   {},
		"postgres://u@db.example/iap?sslmode=disable":            {},
		"postgres://u@db.example/iap?sslmode=require":            {true, false},
		"postgres://u@127.0.0.1/iap?sslmode=verify-full":         {true, true},
		"postgres://u@localhost,db.example/iap?pool_max_conns=3": {true, true},
	} {
		config, err := postgresConfig(url, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		c := config.ConnConfig
		if (c.TLSConfig != nil) != want.tls || want.tls && (c.TLSConfig.InsecureSkipVerify == want.name) {
			t.Errorf("%s: TLS %+v, want %+v", url, c.TLSConfig, want)
		}
		for _, other := range c.Fallbacks {
			if (other.TLSConfig != nil) != want.tls {
				t.Errorf("%s: falls back to %s with TLS %v", url, other.Host, other.TLSConfig != nil)
			}
		}
	}
}

// TestWatcherBehindTheTrimmedChangesListsAgain has a store that missed changes which are no longer kept.
func TestWatcherBehindTheTrimmedChangesListsAgain(t *testing.T) {
	s := &postgresStore{log: slog.New(slog.DiscardHandler), position: 10, seen: 10}
	changes, err := s.Watch(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	_, era := s.watch.prefixes()
	s.heard(10, 30, 12, []Change{{Item: Item{Key: "a", Version: 13}}}, era)
	if c := <-changes; !c.Resync {
		t.Errorf("got %+v, want a Resync", c)
	}
	s.heard(30, 31, 12, []Change{{Item: Item{Key: "a", Version: 31}}}, era)
	if c := <-changes; c.Item.Version != 31 {
		t.Errorf("got %+v after the Resync", c)
	}
}

// TestReadOfChangesThatANewWatchMayMissIsDoneAgain is the race between a look at the changes and a new watch.
func TestReadOfChangesThatANewWatchMayMissIsDoneAgain(t *testing.T) {
	s := &postgresStore{log: slog.New(slog.DiscardHandler)}
	_, era := s.watch.prefixes()
	if _, err := s.Watch(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if more := s.heard(0, 5, 0, nil, era); !more || s.position != 0 {
		t.Errorf("more %v, position %d: changes of the new watch may have been left out", more, s.position)
	}
}

// TestStoreThatHearsNothingIsAway answers nobody although it could: revocations made at other relays are not known to it.
func TestStoreThatHearsNothingIsAway(t *testing.T) {
	s := &postgresStore{log: slog.New(slog.DiscardHandler), now: time.Now, closed: make(chan struct{}), born: time.Now().Add(-pgDeaf - time.Second)}
	_, get := s.Get(t.Context(), "k")
	_, list := s.List(t.Context(), "", "", 0)
	_, swap := s.Swap(t.Context(), "k", 0, nil, time.Time{})
	for op, err := range map[string]error{"get": get, "list": list, "swap": swap, "delete": s.Delete(t.Context(), "k", -1)} {
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v, want ErrUnavailable", op, err)
		}
	}
}
