package state_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"iap/internal/state"
)

// TestSnapshotIsOneMomentOfAStateInUse: of two items that are always written together, it has both as they were.
func TestSnapshotIsOneMomentOfAStateInUse(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	s, err := state.Open(t.Context(), "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	begun, stop := make(chan struct{}), make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		versions := []int64{0, 0}
		for n := 0; ; n++ {
			value := fmt.Append(nil, n)
			var err error
			versions, err = s.SwapAll(t.Context(), []state.Write{{Key: "a", Version: versions[0], Value: value}, {Key: "b", Version: versions[1], Value: value}})
			if err != nil {
				t.Error(err)
				return
			}
			if n == 0 {
				close(begun)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	<-begun
	for i := range 5 {
		to := filepath.Join(dir, fmt.Sprintf("copy-%d.db", i))
		if err := state.Snapshot(t.Context(), path, to); err != nil {
			t.Fatal(err)
		}
		copied, err := state.Open(t.Context(), "sqlite:"+to)
		if err != nil {
			t.Fatal(err)
		}
		a, errA := copied.Get(t.Context(), "a")
		b, errB := copied.Get(t.Context(), "b")
		if errA != nil || errB != nil || string(a.Value) != string(b.Value) {
			t.Errorf("%s and %s, %v, %v", a.Value, b.Value, errA, errB)
		}
		if _, err := copied.Swap(t.Context(), "new", 0, nil, time.Time{}); err != nil {
			t.Errorf("the copy cannot be written to: %v", err)
		}
		if err := copied.Close(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	writer.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := state.Snapshot(t.Context(), path, filepath.Join(dir, "after.db")); err != nil {
		t.Errorf("of a state nobody uses: %v", err)
	}
	if err := state.Snapshot(t.Context(), path, filepath.Join(dir, "after.db")); err == nil {
		t.Error("a file was overwritten")
	}
	if err := state.Snapshot(t.Context(), filepath.Join(dir, "none.db"), filepath.Join(dir, "x")); err == nil {
		t.Error("a state that is not there was copied")
	}
}
