package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	stopLimit  = 20 * time.Second // a program that was told to stop; then it is killed and the test fails
	shownLines = 60               // of a program's output when its test failed
)

// process is one running program.
type process struct {
	t        *testing.T
	name     string
	cmd      *exec.Cmd
	out, err *transcript
	ended    chan struct{} // closed when the program was waited for
	code     int           // exit status, -1 after a signal; valid once ended is closed
}

// start runs a program until the test ends or it is told to stop.
func start(t *testing.T, env []string, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name + " " + strings.Join(args, " "), out: newTranscript(), err: newTranscript(), ended: make(chan struct{})}
	p.cmd = exec.Command(program(name), args...)
	p.cmd.Env = env
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.err
	p.cmd.WaitDelay = stopLimit // somebody who inherited the pipe must not keep us
	dieWithUs(p.cmd)
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	go func() { // joined by cleanup, which every process gets
		defer close(p.ended)
		_ = p.cmd.Wait() // the status is in ProcessState
		p.code = p.cmd.ProcessState.ExitCode()
		p.out.end()
		p.err.end()
	}()
	t.Cleanup(p.cleanup)
	return p
}

// baseEnv is what every program gets: nothing of the surroundings that could steer it.
func baseEnv(home string) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + os.TempDir(), "NO_COLOR=1", "IAP_KEYRING=off",
		"GORACE=atexit_sleep_ms=0 halt_on_error=0",
	}
}

func (p *process) cleanup() {
	ranToItsEnd := p.stop()
	for _, sign := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: "} {
		if strings.Contains(p.err.text(), sign) {
			p.t.Errorf("%s: %s\n%s", p.name, sign, p.err.text())
		}
	}
	if p.t.Failed() && !(ranToItsEnd && p.code == 0) {
		p.t.Logf("%s ended with %d\nstdout: %s\nstderr: %s", p.name, p.code, p.out.tail(), p.err.tail())
	}
}

// stop asks the program to end, as Ctrl-C does, and waits. It reports whether the program had ended before.
func (p *process) stop() bool {
	p.t.Helper()
	select {
	case <-p.ended:
		return true
	default:
	}
	_ = p.cmd.Process.Signal(os.Interrupt) // it may have ended by itself
	timer := time.NewTimer(stopLimit)
	defer timer.Stop()
	select {
	case <-p.ended:
	case <-timer.C:
		p.t.Errorf("%s did not end when it was told to", p.name)
		p.kill()
	}
	return false
}

// kill ends the program as a power cut would, and waits.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.ended
}

// wait returns the exit status of a program that ends by itself.
func (p *process) wait() int {
	p.t.Helper()
	ctx, cancel := limited(p.t)
	defer cancel()
	select {
	case <-p.ended:
		return p.code
	case <-ctx.Done():
		p.t.Fatalf("%s does not end", p.name)
		return -1
	}
}

// result is what came of a program that ended.
type result struct {
	code        int
	out, errOut string
}

// run runs a program to its end.
func run(t *testing.T, env []string, name string, args ...string) result {
	t.Helper()
	p := start(t, env, name, args...)
	code := p.wait()
	return result{code, p.out.text(), p.err.text()}
}

// transcript is the output of a program. It may be read while it grows.
type transcript struct {
	mu      sync.Mutex
	all     bytes.Buffer  // guarded by mu
	over    bool          // guarded by mu
	changed chan struct{} // guarded by mu; closed at the next change
}

func newTranscript() *transcript { return &transcript{changed: make(chan struct{})} }

func (s *transcript) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell()
	return s.all.Write(b)
}

func (s *transcript) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.tell()
}

// tell wakes who waits. mu is held.
func (s *transcript) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *transcript) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.String()
}

func (s *transcript) tail() string {
	lines := strings.Split(s.text(), "\n")
	return strings.Join(lines[max(0, len(lines)-shownLines):], "\n")
}

// mark is a place in the transcript from which await can start.
func (s *transcript) mark() int { return len(s.text()) }

var errEnded = errors.New("the program has ended")

// await waits until text stands n times in what was written after mark, and returns that.
func (s *transcript) await(ctx context.Context, mark int, text string, n int) (string, error) {
	for {
		s.mu.Lock()
		since, over, changed := s.all.String()[mark:], s.over, s.changed
		s.mu.Unlock()
		if strings.Count(since, text) >= n {
			return since, nil
		}
		if over {
			return since, errEnded
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return since, ctx.Err()
		}
	}
}

// awaitText waits until text stands n times on the program's stderr after mark.
func (p *process) awaitText(mark int, text string, n int) string {
	p.t.Helper()
	ctx, cancel := limited(p.t)
	defer cancel()
	since, err := p.err.await(ctx, mark, text, n)
	if err != nil {
		p.t.Fatalf("%s: wait for %q, %d times: %v", p.name, text, n, err)
	}
	return since
}

// awaitLine waits for the first line on the program's stdout.
func (p *process) awaitLine() string {
	p.t.Helper()
	ctx, cancel := limited(p.t)
	defer cancel()
	text, err := p.out.await(ctx, 0, "\n", 1)
	if err != nil {
		p.t.Fatalf("%s: wait for its report: %v\n%s", p.name, err, p.err.text())
	}
	line, _, _ := strings.Cut(text, "\n")
	return line
}
