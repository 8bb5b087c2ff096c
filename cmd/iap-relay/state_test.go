package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"iap/internal/cluster"
	"iap/internal/state"
)

func TestStateIsCopiedOnceAndNotFromUnderARelay(t *testing.T) {
	dir := t.TempDir()
	from, to := "sqlite:"+filepath.Join(dir, "from.db"), "sqlite:"+filepath.Join(dir, "to.db")
	if out, err := command(t, "", "state", "copy", from, to); err == nil {
		t.Errorf("a copy of nothing: %s", out)
	}
	s, err := state.Open(t.Context(), from)
	must(t, err)
	_, err = s.Swap(t.Context(), "k", 0, []byte("v"), time.Time{})
	must(t, err)
	if _, err := command(t, "", "state", "copy", from, to); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a copy of a state in use: %v", err)
	}
	must(t, s.Close())
	if out, err := command(t, "", "state", "copy", from, to); err != nil || !strings.Contains(out, "Copied 1 items") {
		t.Errorf("copy: %s, %v", out, err)
	}
	if _, err := command(t, "", "state", "copy", from, to); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a second copy: %v", err)
	}
	s, err = state.Open(t.Context(), from)
	must(t, err)
	must(t, cluster.New(cluster.Options{Store: s, Instance: "eu-1"}).Beat(t.Context()))
	must(t, s.Close())
	if _, err := command(t, "", "state", "copy", from, "sqlite:"+filepath.Join(dir, "other.db")); err == nil || !strings.Contains(err.Error(), "eu-1") {
		t.Errorf("a copy from under a relay: %v", err)
	}
}
