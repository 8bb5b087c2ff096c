package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"iap/internal/audit"
	"iap/internal/audit/verify"
	"iap/internal/state"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// folder is a data folder with keys and a configuration beside it, without state and log.
func folder(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	must(t, os.MkdirAll(filepath.Join(data, "sinks"), 0o700))
	for name, text := range map[string]string{
		"data/relay.key": "key", "data/relay.key.chain": "[]", "data/assertion.key": "other", "data/instance": "relay-1\n", "data/sinks/a.json": "{}", "relay.yaml": "name: x\n",
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return Options{
		Data: data, Config: map[string]string{"relay.yaml": filepath.Join(dir, "relay.yaml")},
		Manifest: Manifest{Version: "1", Taken: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), Name: "iap.example.com"},
	}
}

func written(t *testing.T, o Options) []byte {
	t.Helper()
	var b bytes.Buffer
	_, err := Write(t.Context(), &b, o)
	must(t, err)
	return b.Bytes()
}

func agreed(string, *Restored) error { return nil }

// TestBackupOfARelayInUseFitsTogether: while the state and the log are written to, what is restored is a state that opens
// and a log that verifies and has all that the state tells of.
func TestBackupOfARelayInUseFitsTogether(t *testing.T) {
	o := folder(t)
	o.StateFile, o.Audit = filepath.Join(o.Data, "state.db"), filepath.Join(o.Data, "audit")
	s, err := state.Open(t.Context(), "sqlite:"+o.StateFile)
	must(t, err)
	l, err := audit.Open(audit.Options{Dir: o.Audit, SegmentBytes: 64 << 10, ReserveBytes: -1})
	must(t, err)
	begun, stop := make(chan struct{}), make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		var version int64
		for n := 1; ; n++ {
			if err := l.Record(context.Background(), audit.Event{Kind: audit.KindAdmin, Request: fmt.Sprint(n)}); err != nil {
				t.Error(err)
				return
			}
			next, err := s.Swap(context.Background(), "n", version, fmt.Append(nil, n), time.Time{})
			if err != nil {
				t.Error(err)
				return
			}
			if version = next; n == 500 {
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
	for i := range 3 {
		packed := written(t, o)
		to := filepath.Join(t.TempDir(), fmt.Sprint("restored-", i))
		r, err := Restore(t.Context(), bytes.NewReader(packed), to, agreed)
		must(t, err)
		report, err := verify.Run(t.Context(), verify.Options{Dir: r.Log})
		must(t, err)
		if !report.OK || report.Last == 0 {
			t.Errorf("the log: %+v", report.Problems)
		}
		copied, err := state.Open(t.Context(), "sqlite:"+filepath.Join(to, StateName))
		must(t, err)
		item, err := copied.Get(t.Context(), "n")
		must(t, err)
		must(t, copied.Close())
		found := false
		for e, err := range audit.Read(r.Log) {
			must(t, err)
			found = found || e.Kind == audit.KindAdmin && e.Request == string(item.Value)
		}
		if !found {
			t.Errorf("the state tells of %s, the log does not", item.Value)
		}
		for name, want := range map[string]string{"relay.key": "key", "relay.key.chain": "[]", "assertion.key": "other", "sinks/a.json": "{}", "config/relay.yaml": "name: x\n"} {
			if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
	}
	close(stop)
	writer.Wait()
	must(t, l.Close())
	must(t, s.Close())
	if left, err := os.ReadDir(filepath.Join(o.Data, workFolder)); err != nil || len(left) > 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestWhatWasCutOrChangedIsNoBackup(t *testing.T) {
	packed := written(t, folder(t))
	if _, err := Read(t.Context(), bytes.NewReader(packed), ""); err != nil {
		t.Fatal(err)
	}
	for n := range len(packed) {
		if _, err := Read(t.Context(), bytes.NewReader(packed[:n]), ""); err == nil {
			t.Fatalf("cut off after %d of %d bytes", n, len(packed))
		}
	}
	whole := unpacked(packed)
	for n := range len(packed) {
		changed := bytes.Clone(packed)
		changed[n] ^= 0x04
		if _, err := Read(t.Context(), bytes.NewReader(changed), ""); err == nil && !bytes.Equal(unpacked(changed), whole) {
			t.Fatalf("byte %d of %d was changed", n, len(packed))
		}
	}
	if _, err := Read(t.Context(), bytes.NewReader(append(bytes.Clone(packed), packed...)), ""); err == nil {
		t.Error("two in one were read as one")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Read(ctx, bytes.NewReader(packed), ""); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// unpacked is what was compressed: some bits of its form say nothing.
func unpacked(packed []byte) []byte {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil
	}
	data, err := io.ReadAll(z)
	if err != nil {
		return nil
	}
	return data
}

// entry is one of a made-up archive.
type entry struct {
	header tar.Header
	text   string
}

func plain(name, text string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(text)), Mode: 0o600}, text}
}

// archived packs entries, with a manifest that names them.
func archived(t *testing.T, entries ...entry) []byte {
	t.Helper()
	m := Manifest{Schema: Schema, LeftOut: []LeftOut{}}
	for _, e := range entries {
		sum := sha256.Sum256([]byte(e.text))
		m.Files = append(m.Files, File{e.header.Name, e.header.Size, hex.EncodeToString(sum[:])})
	}
	text, err := json.Marshal(m)
	must(t, err)
	return packedAs(t, append(entries, plain(manifestName, string(text)))...)
}

func packedAs(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, e := range entries {
		must(t, w.WriteHeader(&e.header))
		_, err := w.Write([]byte(e.text))
		must(t, err)
	}
	must(t, errors.Join(w.Close(), z.Close()))
	return b.Bytes()
}

func TestHostileArchivesLeaveNothing(t *testing.T) {
	link := func(kind byte, name, to string) entry {
		return entry{tar.Header{Typeflag: kind, Name: name, Linkname: to}, ""}
	}
	good := plain("data/relay.key", "x")
	for name, packed := range map[string][]byte{
		"above":               archived(t, good, plain("data/../../x", "x")),
		"absolute":            archived(t, good, plain("/etc/x", "x")),
		"another folder":      archived(t, good, plain("elsewhere/x", "x")),
		"a folder's name":     archived(t, good, plain("data", "x")),
		"a drive":             archived(t, good, plain("data/C:x", "x")),
		"backslashes":         archived(t, good, plain(`data/..\..\x`, "x")),
		"not clean":           archived(t, good, plain("data//x", "x")),
		"twice":               archived(t, good, good),
		"symbolic link":       archived(t, good, link(tar.TypeSymlink, "data/x", "/etc")),
		"hard link":           archived(t, good, link(tar.TypeLink, "data/x", "/etc/passwd")),
		"folder":              archived(t, good, link(tar.TypeDir, "data/x", "")),
		"device":              archived(t, good, link(tar.TypeChar, "data/x", "")),
		"a file as folder":    archived(t, plain("data/a", "x"), plain("data/a/b", "x")),
		"a name too long":     archived(t, good, plain("data/"+strings.Repeat("x", maxName), "x")),
		"no data":             archived(t, plain("audit/x", "x")),
		"two states":          archived(t, plain("data/state.db", "x"), plain("state.db", "y")),
		"no manifest":         packedAs(t, good),
		"an empty one":        packedAs(t),
		"foreign manifest":    packedAs(t, good, plain(manifestName, `{"schema":"other/v1"}`)),
		"not named":           packedAs(t, good, plain(manifestName, `{"schema":"iap-backup/v1","files":[]}`)),
		"behind the manifest": packedAs(t, plain(manifestName, `{"schema":"iap-backup/v1","files":[]}`), good),
		"named, not there":    packedAs(t, plain(manifestName, `{"schema":"iap-backup/v1","files":[{"name":"data/x"}]}`)),
		"no archive":          []byte("hello"),
		"nothing":             nil,
	} {
		dir := t.TempDir()
		if _, err := Restore(t.Context(), bytes.NewReader(packed), filepath.Join(dir, "new"), agreed); err == nil {
			t.Errorf("%s: restored", name)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v, %v", name, left, err)
		}
	}
}

func TestRestoreMakesTheFolderWhenAllAgreeAndNeverMixes(t *testing.T) {
	packed := written(t, folder(t))
	dir := t.TempDir()
	to := filepath.Join(dir, "new")
	wrong := errors.New("not so")
	if _, err := Restore(t.Context(), bytes.NewReader(packed), to, func(draft string, _ *Restored) error {
		if _, err := os.Stat(filepath.Join(draft, "relay.key")); err != nil {
			t.Error(err)
		}
		return wrong
	}); !errors.Is(err, wrong) {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	must(t, os.Mkdir(to, 0o755))
	_, err := Restore(t.Context(), bytes.NewReader(packed), to, agreed)
	must(t, err)
	if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := Restore(t.Context(), bytes.NewReader(packed), to, agreed); err == nil {
		t.Error("a folder that is not empty was restored into")
	}
}

func TestOneBackupAtATimeAndFilesThatAreNoneAreSaid(t *testing.T) {
	o := folder(t)
	must(t, os.Symlink("/etc", filepath.Join(o.Data, "elsewhere")))
	var b bytes.Buffer
	m, err := Write(t.Context(), &b, o)
	must(t, err)
	if len(m.LeftOut) != 1 || m.LeftOut[0].Name != "elsewhere" {
		t.Errorf("left out: %+v", m.LeftOut)
	}
	_, err = Write(t.Context(), writerFunc(func(p []byte) (int, error) {
		if _, err := Write(t.Context(), &bytes.Buffer{}, o); err == nil || !strings.Contains(err.Error(), "another backup") {
			t.Errorf("two at once: %v", err)
		}
		return len(p), nil
	}), o)
	must(t, err)
	if _, err := Write(t.Context(), writerFunc(func([]byte) (int, error) { return 0, errors.New("disk full") }), o); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("a full disk: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	text := `{"schema":"iap-backup/v1","files":[],"left_out":[]}`
	_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: manifestName, Size: int64(len(text)), Mode: 0o600})
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	_ = z.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		in := filepath.Join(dir, "in")
		must(t, os.Mkdir(in, 0o700))
		_, _ = Read(t.Context(), bytes.NewReader(data), in)
		if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
			t.Errorf("written outside: %v, %v", all, err)
		}
	})
}
