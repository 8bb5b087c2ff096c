package state_test

import (
	"path/filepath"
	"testing"
	"time"

	"iap/internal/state"
)

func BenchmarkStore(b *testing.B) {
	s, err := state.Open(b.Context(), "sqlite:"+filepath.Join(b.TempDir(), "state.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	version := int64(0)
	value := make([]byte, 300)
	b.Run("Swap", func(b *testing.B) {
		for b.Loop() {
			if version, err = s.Swap(b.Context(), "k", version, value, time.Time{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Get", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := s.Get(b.Context(), "k"); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
