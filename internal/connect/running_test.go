package connect

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestSecondClaimOfAResourceFails(t *testing.T) {
	r := Registry{Dir: t.TempDir()}
	c, err := r.Claim("phi3", "1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Claim("phi3", "2"); !errors.Is(err, ErrAlreadyRunning) {
		t.Fatalf("err = %v", err)
	}
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	again, err := r.Claim("phi3", "3")
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Release()
}

func TestRunThatNeedsALoginIsFoundAsSuch(t *testing.T) {
	r := Registry{Dir: t.TempDir()}
	c, err := r.Claim("phi3", "1")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(Running{Kind: "model"}); err != nil {
		t.Fatal(err)
	}
	for _, needed := range []bool{true, false, false, true} {
		if err := c.NeedLogin(needed); err != nil {
			t.Fatal(err)
		}
		if run, ok := r.Lookup("phi3"); !ok || run.LoginNeeded != needed {
			t.Errorf("needed %v, found %+v", needed, run)
		}
	}
	_ = c.Release()
	if err := c.NeedLogin(true); err != nil {
		t.Fatal(err)
	}
	next, err := r.Claim("phi3", "2")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = next.Release() }()
	if err := next.Publish(Running{Kind: "model"}); err != nil {
		t.Fatal(err)
	}
	if run, ok := r.Lookup("phi3"); !ok || run.LoginNeeded {
		t.Errorf("the next run inherits the need: %+v", run)
	}
}

func TestPublishedRunIsFoundAndPrivate(t *testing.T) {
	r := Registry{Dir: filepath.Join(t.TempDir(), "running")}
	c, err := r.Claim("phi3", "1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Release() }()
	if _, ok := r.Lookup("phi3"); ok {
		t.Error("found before it was published")
	}
	if err := c.Publish(Running{Kind: "model", Port: 11434, LocalKey: "secret"}); err != nil {
		t.Fatal(err)
	}
	run, ok := r.Lookup("phi3")
	if !ok || run.Port != 11434 || run.Resource != "phi3" || run.ID != "1" {
		t.Fatalf("%+v, %v", run, ok)
	}
	info, err := os.Stat(r.runFile("phi3"))
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if list, err := r.List(); err != nil || len(list) != 1 {
		t.Errorf("List() = %v, %v", list, err)
	}
}

// A process that was killed leaves its file, but not its lock.
func TestFileOfADeadProcessIsNotARun(t *testing.T) {
	r := Registry{Dir: t.TempDir()}
	c, err := r.Claim("phi3", "1")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(Running{Port: 1}); err != nil {
		t.Fatal(err)
	}
	_ = c.lock.Unlock() // what the kernel does at its death
	if _, ok := r.Lookup("phi3"); ok {
		t.Error("found")
	}
	if list, _ := r.List(); len(list) != 0 {
		t.Errorf("listed: %v", list)
	}
	if found, err := r.Stop(context.Background(), "phi3"); found || err != nil {
		t.Errorf("Stop() = %v, %v", found, err)
	}
}

func TestStopEndsTheRunAndWaitsForIt(t *testing.T) {
	r := Registry{Dir: t.TempDir()}
	c, err := r.Claim("phi3", "1")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(Running{Port: 1}); err != nil {
		t.Fatal(err)
	}
	released := make(chan struct{})
	go func() {
		defer close(released)
		c.Wait(within(t))
		_ = c.Release()
	}()
	found, err := r.Stop(within(t), "phi3")
	if !found || err != nil {
		t.Fatalf("Stop() = %v, %v", found, err)
	}
	<-released
}

func TestStaleStopDoesNotHitANewerRun(t *testing.T) {
	r := Registry{Dir: t.TempDir()}
	c, err := r.Claim("phi3", "new")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(Running{Port: 2}); err != nil {
		t.Fatal(err)
	}
	old := &Claim{registry: r, resource: "phi3", id: "old", lock: c.lock}
	if run, err := old.registry.read("phi3"); err != nil || run.ID == old.id {
		t.Fatalf("%+v, %v", run, err)
	}
	old.Wait(within(t)) // another's file means that this run is over
	if _, ok := r.Lookup("phi3"); !ok {
		t.Error("the newer run's file is gone")
	}
	_ = c.Release()
}
