package state_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"iap/internal/state"
	"iap/internal/state/pgtest"
)

// BenchmarkStore writes one item after another, many at once, and reads: on SQLite's file and on a PostgreSQL whose commits
// are synced as in production.
func BenchmarkStore(b *testing.B) {
	durable := pgtest.Server{Durable: true}
	defer durable.Close()
	for name, url := range map[string]func(*testing.B) string{
		"sqlite":   func(b *testing.B) string { return "sqlite:" + filepath.Join(b.TempDir(), "state.db") },
		"postgres": func(b *testing.B) string { return durable.URL(b) },
	} {
		b.Run(name, func(b *testing.B) {
			s, err := state.Open(b.Context(), url(b))
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			benchStore(b, s)
		})
	}
}

func benchStore(b *testing.B, s state.Store) {
	value := make([]byte, 300)
	b.Run("Swap", func(b *testing.B) {
		item, _ := s.Get(b.Context(), "k")
		version, err := item.Version, error(nil)
		for b.Loop() {
			if version, err = s.Swap(b.Context(), "k", version, value, time.Time{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Swap64AtOnce", func(b *testing.B) {
		var n atomic.Int64
		b.SetParallelism(32) // of GOMAXPROCS
		b.RunParallel(func(pb *testing.PB) {
			mine := "p" + strconv.FormatInt(time.Now().UnixNano(), 36) + "/" + strconv.FormatInt(n.Add(1), 10) + "/"
			for i := 0; pb.Next(); i++ {
				if _, err := s.Swap(b.Context(), mine+strconv.Itoa(i), 0, value, time.Time{}); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("SwapAll100", func(b *testing.B) {
		base := time.Now().UnixNano()
		for i := 0; b.Loop(); i++ {
			writes := make([]state.Write, 100)
			for j := range writes {
				writes[j] = state.Write{Key: fmt.Sprint("all/", base, i, "/", j), Value: value}
			}
			if _, err := s.SwapAll(b.Context(), writes); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Get", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := s.Get(b.Context(), "k"); err != nil && !errors.Is(err, state.ErrNotFound) {
					b.Error(err)
				}
			}
		})
	})
}
