package system

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	endTimeout = 5 * time.Second // for a process to end when asked
	logTail    = 2 << 10         // of a hop that failed, shown
)

// process is one hop that runs until it is stopped.
type process struct {
	name  string
	log   string
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended and been waited for
}

// start runs a program whose standard error goes to NAME.log. With a reader it
// gets what the program writes to standard output; the reader must end soon.
func (s *System) start(name string, argv []string, read func(io.Reader) error) (*process, error) {
	p := &process{name: name, log: filepath.Join(s.dir, name+".log"), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...) // ends by stop: each hop is asked in its turn
	p.cmd.Env, p.cmd.Stderr = s.environment(), log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	ready := make(chan error, 1)
	go func() { // ends with the process, which stop waits for
		defer close(p.ended)
		if read != nil {
			ready <- read(out)
		}
		_, _ = io.Copy(io.Discard, out) // until it ends
		_ = p.cmd.Wait()                // its status is in the log
	}()
	s.running = append(s.running, p)
	if read == nil {
		return p, nil
	}
	select {
	case err = <-ready:
	case <-time.After(readyTimeout):
		err = errors.New("it is not ready in time")
	}
	if err != nil {
		return nil, p.failed(err)
	}
	return p, nil
}

// failed adds the end of the log to an error.
func (p *process) failed(err error) error {
	data, _ := os.ReadFile(p.log) // an empty log says as much
	data = bytes.TrimSpace(data[max(0, len(data)-logTail):])
	return fmt.Errorf("%s: %w; its log ends with:\n%s", p.name, err, data)
}

// stop asks the process to end, waits, and kills it if it does not.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(os.Interrupt) // it may have ended by itself, or with the same Ctrl-C
	timer := time.NewTimer(endTimeout)
	defer timer.Stop()
	select {
	case <-p.ended:
		return nil
	case <-timer.C:
	}
	_ = p.cmd.Process.Kill() // or it ended just now
	<-p.ended
	return fmt.Errorf("%s did not end within %s of the signal and was killed", p.name, endTimeout)
}

// command runs a program to its end and returns what it printed.
func (s *System) command(ctx context.Context, stdin string, argv ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Env, c.Stdin, c.WaitDelay = s.environment(), strings.NewReader(stdin), endTimeout
	out, err := c.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, fmt.Errorf("%s %s: %w: %s", filepath.Base(argv[0]), argv[1], err, bytes.TrimSpace(exit.Stderr))
	}
	return out, err
}

// environment keeps the user's own profile, keyring and proxies out of it.
func (s *System) environment() []string {
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "IAP_") && !strings.HasSuffix(strings.ToUpper(name), "_PROXY") {
			env = append(env, e)
		}
	}
	return append(env, "IAP_CONFIG_DIR="+filepath.Join(s.dir, "user"), "IAP_KEYRING=off", "NO_COLOR=1")
}
