package audit

import (
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// faultyDisk opens files that fail as told.
type faultyDisk struct {
	mu       sync.Mutex
	write    error // of WriteAt, after writing the first half of the record
	truncate error
	sync     error
	create   error
	syncs    int           // calls of Sync
	blocked  chan struct{} // if set, Sync waits until it is closed
	entered  chan struct{} // if set, gets a value when Sync begins
}

type faultyFile struct {
	file
	disk *faultyDisk
}

func (d *faultyDisk) open(path string, flags int) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.create != nil && flags&os.O_CREATE != 0 {
		return nil, d.create
	}
	f, err := openSegment(path, flags)
	return &faultyFile{f, d}, err
}

func (d *faultyDisk) set(change func(d *faultyDisk)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	err := f.disk.write
	f.disk.mu.Unlock()
	if err != nil {
		n, _ := f.file.WriteAt(p[:len(p)/2], off)
		return n, err
	}
	return f.file.WriteAt(p, off)
}

func (f *faultyFile) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.truncate != nil {
		return f.disk.truncate
	}
	return f.file.Truncate(size)
}

func (f *faultyFile) Sync() error {
	f.disk.mu.Lock()
	f.disk.syncs++
	err, blocked, entered := f.disk.sync, f.disk.blocked, f.disk.entered
	f.disk.mu.Unlock()
	if entered != nil {
		entered <- struct{}{}
	}
	if blocked != nil {
		<-blocked
	}
	return err
}

func openFaulty(t *testing.T, o Options) (*Log, *faultyDisk) {
	t.Helper()
	d := new(faultyDisk)
	o.Dir = t.TempDir()
	o.ReserveBytes = 256 << 10
	l, err := openLog(o, d.open)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, d
}

func TestShortWriteIsUndone(t *testing.T) {
	l, d := openFaulty(t, Options{})
	record(t, l, allow("before"))
	before, err := os.ReadFile(lastSegment(t, l.dir))
	if err != nil {
		t.Fatal(err)
	}
	d.set(func(d *faultyDisk) { d.write = syscall.ENOSPC })
	for range 3 {
		err := l.Record(t.Context(), allow("refused"))
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "no space left") || !strings.Contains(err.Error(), l.dir) {
			t.Errorf("record on a full disk: %v", err)
		}
	}
	if after, err := os.ReadFile(lastSegment(t, l.dir)); err != nil || string(after) != string(before) {
		t.Errorf("the file changed: %q, %v", after, err)
	}
	if err := l.Healthy(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("health: %v", err)
	}
	d.set(func(d *faultyDisk) { d.write = nil })
	record(t, l, allow("after"))
	if err := l.Healthy(); err != nil {
		t.Errorf("health after recovery: %v", err)
	}
	events := readAll(t, l.dir)
	if told := withReason(events, ReasonRecovered); len(told) != 1 || told[0].Count != 3 {
		t.Errorf("events of recovery: %+v", told)
	}
	if len(ofKind(events, KindDecision)) != 2 {
		t.Errorf("events: %+v", events)
	}
}

func TestWriteThatCannotBeUndoneStopsTheLogUntilItCan(t *testing.T) {
	l, d := openFaulty(t, Options{})
	record(t, l, allow("before"))
	d.set(func(d *faultyDisk) { d.write, d.truncate = syscall.EIO, syscall.EIO })
	if err := l.Record(t.Context(), allow("broken")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("record: %v", err)
	}
	d.set(func(d *faultyDisk) { d.write = nil })
	for _, e := range []Event{allow("still broken"), outcome("before")} {
		if err := l.Record(t.Context(), e); !errors.Is(err, ErrUnavailable) {
			t.Errorf("record behind half a record: %v", err)
		}
	}
	d.set(func(d *faultyDisk) { d.truncate = nil })
	record(t, l, allow("after"))
	if got := ofKind(readAll(t, l.dir), KindDecision); len(got) != 2 || got[1].Request != "after" {
		t.Errorf("decisions: %+v", got)
	}
}

func TestHealthTriesTheDiskByItself(t *testing.T) {
	l, d := openFaulty(t, Options{})
	d.set(func(d *faultyDisk) { d.write = syscall.EIO })
	if err := l.Record(t.Context(), allow("r")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("record: %v", err)
	}
	d.set(func(d *faultyDisk) { d.write = nil })
	if err := l.Healthy(); err != nil {
		t.Errorf("health: %v", err)
	}
	if told := withReason(readAll(t, l.dir), ReasonRecovered); len(told) != 1 {
		t.Errorf("events of recovery: %+v", told)
	}
}

func TestFailedRotationLosesNoRecord(t *testing.T) {
	l, d := openFaulty(t, Options{SegmentBytes: 1 << 10})
	d.set(func(d *faultyDisk) { d.create = syscall.ENOSPC })
	for range 50 {
		record(t, l, Event{Kind: KindLogin, Message: strings.Repeat("m", 100)})
	}
	if segments, _ := listSegments(l.dir); len(segments) != 1 {
		t.Errorf("segments: %v", segments)
	}
	d.set(func(d *faultyDisk) { d.create = nil })
	for range 20 {
		record(t, l, Event{Kind: KindLogin, Message: strings.Repeat("m", 100)})
	}
	if segments, _ := listSegments(l.dir); len(segments) < 2 {
		t.Errorf("segments: %v", segments)
	}
	readAll(t, l.dir)
}

func TestWaitingRecordsShareOneSync(t *testing.T) {
	l, d := openFaulty(t, Options{Sync: SyncGroup})
	hold, entered := make(chan struct{}), make(chan struct{}, 10)
	d.set(func(d *faultyDisk) { d.blocked, d.entered, d.syncs = hold, entered, 0 })
	const records = 40
	var all sync.WaitGroup
	errs := make([]error, records+1)
	all.Go(func() { errs[records] = l.Record(t.Context(), allow("first")) })
	<-entered // the first one syncs; the others must wait for the next
	var written sync.WaitGroup
	for i := range records {
		written.Add(1)
		all.Go(func() {
			e := Event{Kind: KindLogin}
			n := new(line)
			n.encode(&e)
			b, err := l.append(&e, n, false)
			written.Done()
			errs[i] = errors.Join(err, l.commit(b))
		})
	}
	written.Wait()
	close(hold)
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if d.syncs != 2 {
		t.Errorf("%d records needed %d syncs, want 2", records+1, d.syncs)
	}
}

// TestFailedSyncIsNeverTakenBack has a sync fail: its records are refused, and the file is not trusted again although the
// next sync would succeed.
func TestFailedSyncIsNeverTakenBack(t *testing.T) {
	l, d := openFaulty(t, Options{Sync: SyncGroup})
	record(t, l, allow("before"))
	d.set(func(d *faultyDisk) { d.sync = syscall.EIO })
	if err := l.Record(t.Context(), allow("unsynced")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("record: %v", err)
	}
	if err := l.Healthy(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("health: %v", err)
	}
	d.set(func(d *faultyDisk) { d.sync = nil })
	if err := l.Healthy(); err != nil {
		t.Errorf("health once syncs succeed: %v", err)
	}
	record(t, l, allow("after"))
	if segments, _ := listSegments(l.dir); len(segments) != 3 {
		t.Errorf("segments: %v", segments)
	}
	record(t, l, outcome("before"))
	record(t, l, outcome("after"))
	events := readAll(t, l.dir)
	if ended := withEnded(events, EndedAuditUnavailable); len(ended) != 1 || ended[0].Request != "unsynced" {
		t.Errorf("outcomes of the unsynced decision: %+v", ended)
	}
	wantOneOutcomeEach(t, events)
}

func TestUnwritableDirectoryIsRefusedClearly(t *testing.T) {
	d := &faultyDisk{create: os.ErrPermission}
	dir := t.TempDir()
	if _, err := openLog(Options{Dir: dir}, d.open); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "begin audit segment") {
		t.Errorf("open: %v", err)
	}
	openTest(t, Options{Dir: dir}) // the failed one let go of the directory
}
