package state_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"iap/internal/state"
)

// TestFullDiskRefusesWritesAndNothingElse needs a small disk of its own, which only root may mount.
func TestFullDiskRefusesWritesAndNothingElse(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mount a small disk: %v", err)
	}
	defer syscall.Unmount(disk, 0)
	url := "sqlite:" + filepath.Join(disk, "state.db")
	s := openAt(t, url, nil)
	if _, err := s.Swap(t.Context(), "kept", 0, []byte("value"), time.Time{}); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 500<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	var full error
	for i := 0; full == nil && i < 20; i++ {
		_, full = s.Swap(t.Context(), fmt.Sprint("large", i), 0, bytes.Repeat([]byte("v"), 100_000), time.Time{})
	}
	if !errors.Is(full, state.ErrUnavailable) || !strings.Contains(full.Error(), "disk is full") {
		t.Errorf("swap on a full disk: %v", full)
	}
	if item, err := s.Get(t.Context(), "kept"); err != nil || string(item.Value) != "value" {
		t.Errorf("get on a full disk: %+v, %v", item, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Swap(t.Context(), "after", 0, []byte("value"), time.Time{}); err != nil {
		t.Errorf("swap with space again: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, url, nil)
	defer s.Close()
	for _, key := range []string{"kept", "after"} {
		if _, err := s.Get(t.Context(), key); err != nil {
			t.Errorf("after reopening: %v", err)
		}
	}
}
