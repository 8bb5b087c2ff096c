package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"iap/internal/bench/fakeslm"
)

// TestMain is the model server when it is run as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "fakeslm" {
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		if err := fakeslm.Command(ctx, os.Args[2:], os.Stdout); err != nil {
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// binaries builds the three of the product.
func binaries(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the binaries")
	}
	dir := t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-o", dir, "iap/cmd/iap-relay", "iap/cmd/iap-agent", "iap/cmd/iapctl")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return dir
}

func TestBenchMeasuresTheRealBinariesAndLeavesNoProcess(t *testing.T) {
	bin, keep := binaries(t), t.TempDir()
	model := []string{os.Args[0], "fakeslm", "-listen", "127.0.0.1:0"}
	args := []string{"-bin", bin, "-dir", keep, "-quick", "-for", "30ms", "-sse-for", "200ms", "-tests", "lat-c1,new-c1,sat-c8,sse-5,down-1,up-1"}
	var out, progress bytes.Buffer
	if err := Command(t.Context(), args, model, &out, &progress); err != nil {
		t.Fatalf("%v\n%s\n%s", err, progress.String(), out.String())
	}
	for _, want := range []string{"sat-c8", "token delay p50, ms", "raw results:"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	body, err := os.ReadFile(filepath.Join(keep, "bench.json"))
	if err != nil {
		t.Fatal(err)
	}
	var results Results
	if err := json.Unmarshal(body, &results); err != nil || len(results.Measurements) != 6*2+5 {
		t.Errorf("%d measurements kept, %v", len(results.Measurements), err)
	}
	noneLeft(t, bin)

	ctx, cancel := context.WithCancel(t.Context())
	interrupt := writerFunc(func(line []byte) {
		if bytes.Contains(line, []byte("round 1")) {
			cancel()
		}
	})
	if err := Command(ctx, args, model, &out, interrupt); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted run ended with %v", err)
	}
	noneLeft(t, bin)
}

// noneLeft looks for processes of the binaries in a folder. Where there is no
// /proc it sees none.
func noneLeft(t *testing.T, bin string) {
	t.Helper()
	links, _ := filepath.Glob("/proc/[0-9]*/exe") // the pattern is good
	for _, link := range links {
		if path, err := os.Readlink(link); err == nil && strings.HasPrefix(path, bin) {
			t.Errorf("%s still runs as %s", path, filepath.Dir(link))
		}
	}
}

type writerFunc func(p []byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}
