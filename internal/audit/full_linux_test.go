package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// smallDisk mounts a disk of 1 MiB, which only root may.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all space that is left and returns what gives it back.
func fill(t *testing.T, disk string) (free func()) {
	t.Helper()
	path := filepath.Join(disk, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// recordUntilRefused fills what is left of the segment's last page and returns the error.
func recordUntilRefused(t *testing.T, l *Log) error {
	t.Helper()
	for i := range 100 {
		if err := l.Record(t.Context(), Event{Kind: KindLogin, Message: fmt.Sprint(i)}); err != nil {
			return err
		}
	}
	t.Fatal("a full disk took 100 records")
	return nil
}

func TestAU03FullDiskStopsDecisionsUntilThereIsSpace(t *testing.T) {
	disk := smallDisk(t)
	l := openTest(t, Options{Dir: filepath.Join(disk, "audit")})
	defer l.Close() // before the disk goes
	record(t, l, allow("running"))
	free := fill(t, disk)
	err := recordUntilRefused(t, l)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("record: %v", err)
	}
	if err := l.Healthy(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("health: %v", err)
	}
	for i := range 200 { // outcomes and kills go on, from the reserve
		record(t, l, outcome(fmt.Sprint("running", i)))
		record(t, l, Event{Kind: KindAdmin, Action: "kill", Session: fmt.Sprint("s", i)})
		record(t, l, Event{Kind: KindSession, Session: fmt.Sprint("s", i), Ended: "revoked"})
	}
	if err := l.Record(t.Context(), allow("refused")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a decision took space of the reserve: %v", err)
	}
	free()
	record(t, l, allow("again"))
	if err := l.Healthy(); err != nil {
		t.Errorf("health: %v", err)
	}
	if info, err := os.Stat(filepath.Join(l.dir, "reserve")); err != nil || info.Size() != l.reserve.want {
		t.Errorf("the reserve is not whole again: %v, %v", info, err)
	}
	events := readAll(t, l.dir)
	if len(withReason(events, ReasonRecovered)) != 1 || len(ofKind(events, KindAdmin)) != 200 || len(ofKind(events, KindOutcome)) != 200 {
		t.Errorf("%d events, %d of recovery", len(events), len(withReason(events, ReasonRecovered)))
	}
}

func TestRelayThatDiedOnAFullDiskEndsItsDecisions(t *testing.T) {
	disk := smallDisk(t)
	dir := filepath.Join(disk, "audit")
	l := openTest(t, Options{Dir: dir})
	for i := range 100 {
		record(t, l, allow(fmt.Sprint("r", i)))
	}
	free := fill(t, disk)
	recordUntilRefused(t, l)
	crash(t, l)
	appendTo(t, lastSegment(t, dir), "{") // fits the last page
	l = openTest(t, Options{Dir: dir})
	defer l.Close()
	if err := l.Record(t.Context(), allow("refused")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("decision on a full disk: %v", err)
	}
	free()
	record(t, l, allow("again"))
	record(t, l, outcome("again"))
	events := readAll(t, dir)
	if lost := wantOneOutcomeEach(t, events); len(lost) != 100 || len(withReason(events, ReasonTornLine)) != 1 {
		t.Errorf("%d decisions ended", len(lost))
	}
}

// TestExhaustedReserveKeepsWhatItOwes fills the reserve too: what the last run left to be said comes later.
func TestExhaustedReserveKeepsWhatItOwes(t *testing.T) {
	disk := smallDisk(t)
	dir := filepath.Join(disk, "audit")
	l := openTest(t, Options{Dir: dir})
	record(t, l, allow("r"))
	free := fill(t, disk)
	recordUntilRefused(t, l)
	var err error
	for i := 0; err == nil && i < 10_000; i++ {
		err = l.Record(t.Context(), Event{Kind: KindAdmin, Message: fmt.Sprint(i)})
	}
	if !errors.Is(err, ErrUnavailable) {
		t.Fatalf("the reserve never ended: %v", err)
	}
	crash(t, l)
	l = openTest(t, Options{Dir: dir})
	defer l.Close()
	if err := l.Healthy(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("health: %v", err)
	}
	free()
	if err := l.Healthy(); err != nil {
		t.Errorf("health with space: %v", err)
	}
	if lost := wantOneOutcomeEach(t, readAll(t, dir)); len(lost) != 1 {
		t.Errorf("%d decisions ended", len(lost))
	}
}
