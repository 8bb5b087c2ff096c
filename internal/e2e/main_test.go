package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// binaries is the folder of the programs under test. TestMain writes it once, before any test runs.
var binaries string

const (
	// atOnce is how many tests run side by side at least: they wait for other processes far more than they compute.
	atOnce = 4
	// patience bounds each wait. It is far above what anything here takes, so that a loaded machine fails no test.
	patience = 60 * time.Second
	// pollEvery is how often a condition without an event of its own is looked at.
	pollEvery = 20 * time.Millisecond
	// buildLimit bounds the build of the three programs from an empty cache.
	buildLimit = 10 * time.Minute
)

func TestMain(m *testing.M) {
	dir, err := build()
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the programs under test:", err)
		os.Exit(1)
	}
	binaries = dir
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set(strconv.Itoa(max(atOnce, runtime.GOMAXPROCS(0)))) // a number is never refused
	}
	code := m.Run()
	if left := leftovers(dir); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "processes outlived their tests:", strings.Join(left, ", "))
		code = max(code, 1)
	}
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, "goroutines outlived their tests:", err)
		code = 1
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, "remove the programs:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// build compiles the programs into a new folder.
func build() (string, error) {
	dir, err := os.MkdirTemp("", "iap-e2e-")
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	args := append([]string{"build", "-o", dir + string(filepath.Separator)}, raceFlags...)
	c := exec.CommandContext(ctx, "go", append(args, "iap/cmd/iapctl", "iap/cmd/iap-agent", "iap/cmd/iap-relay")...)
	if out, err := c.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("%w\n%s", err, out), os.RemoveAll(dir))
	}
	return dir, nil
}

// program is the path of a program under test; what is a path already stays one.
func program(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(binaries, name)
}

// leftovers lists processes that run a program from dir. Only Linux tells.
func leftovers(dir string) []string {
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return nil
	}
	var left []string
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, dir+string(filepath.Separator)) {
			left = append(left, filepath.Base(filepath.Dir(link))+" "+filepath.Base(target))
		}
	}
	slices.Sort(left)
	return left
}

// limited is a context with the deadline of one wait. It is good in a test's cleanup too.
func limited(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(t.Context()), patience)
}

// eventually waits until condition holds. It is for what tells of itself by no event.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := limited(t)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
