package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
	"unicode"
)

const (
	// callLimit bounds one call of the system's manager. Stopping waits for the program, which drains for seconds.
	callLimit = 30 * time.Second
	// maxOutput is what is kept of a call's output.
	maxOutput = 16 << 10
)

// ErrUnsupported: this system has no manager that this package knows.
var ErrUnsupported = errors.New("no service manager for users is known here")

// Spec is what is to run.
type Spec struct {
	Name    string   // of the service: letters, digits, dots and dashes
	About   string   // one line for people
	Program string   // absolute path
	Args    []string // without the program
	Env     []string // NAME=value
}

// check refuses what no file could carry: the texts are quoted, but a line that ends is the end of an entry everywhere.
func (s Spec) check() error {
	if s.Name == "" || strings.Trim(s.Name, "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" || s.Name[0] == '.' || s.Name[0] == '-' {
		return fmt.Errorf("service name %q is not of a-z, 0-9, dots and dashes", s.Name)
	}
	if !filepath.IsAbs(s.Program) {
		return fmt.Errorf("program %q has no absolute path", s.Program)
	}
	for _, text := range append(append([]string{s.About, s.Program}, s.Args...), s.Env...) {
		if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar }) {
			return fmt.Errorf("%q holds a control character", text)
		}
	}
	return nil
}

// State is what the system knows of a service.
type State struct {
	File    string // where it stands or would
	Exists  bool
	Edited  bool   // by somebody else than this package
	Current bool   // its text is what an install would write now
	Enabled bool   // it starts with the user's login
	Running bool   //
	PID     int    // while it runs
	Detail  string // the manager's own word, such as "failed"
	Reached bool   // the manager answered
	Lingers bool   // it runs also while the user is logged out; Linux
}

// A manager is the system's own. Its calls end with ctx.
type manager interface {
	file() (path string, err error)
	text(s Spec) string
	load(ctx context.Context, s Spec) error // the file is new or changed: know it, start it now and at each login
	unload(ctx context.Context, s Spec) error
	forget(ctx context.Context) error // the file is gone
	start(ctx context.Context, s Spec) error
	stop(ctx context.Context, s Spec) error
	fill(ctx context.Context, s Spec, state *State)
}

// Service is one service of this user.
type Service struct {
	spec    Spec
	manager manager
}

// runner runs a program and returns what it said; tests have their own.
type runner func(ctx context.Context, name string, args ...string) (string, error)

// New is the service spec of this system's user. Env looks a variable of the process up.
func New(spec Spec, env func(string) string) (*Service, error) {
	return newFor(runtime.GOOS, spec, env, run)
}

func newFor(system string, spec Spec, env func(string) string, run runner) (*Service, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	switch system {
	case "linux":
		return &Service{spec, systemd{spec.Name, env, run}}, nil
	case "darwin":
		return &Service{spec, launchd{spec.Name, env, run}}, nil
	}
	return nil, ErrUnsupported
}

// Text is the file's text.
func (s *Service) Text() string { return sign(s.manager.text(s.spec)) }

// File is where it stands.
func (s *Service) File() (string, error) { return s.manager.file() }

// IsCurrent reports whether the file is there with the text that an install would write.
func (s *Service) IsCurrent() bool {
	path, err := s.manager.file()
	if err != nil {
		return false
	}
	_, _, text, err := readOwn(path)
	return err == nil && text == s.Text()
}

// Install writes the file and starts the service, now and at each login. ErrEdited if somebody else wrote the file, unless force.
func (s *Service) Install(ctx context.Context, force bool) error {
	path, err := s.manager.file()
	if err != nil {
		return err
	}
	if err := writeOwn(path, s.Text(), force); err != nil {
		return err
	}
	return s.manager.load(ctx, s.spec)
}

// Uninstall stops the service and removes the file; false if there was none. ErrEdited if somebody else wrote it, unless force.
func (s *Service) Uninstall(ctx context.Context, force bool) (bool, error) {
	path, err := s.manager.file()
	if err != nil {
		return false, err
	}
	exists, own, _, err := readOwn(path)
	switch {
	case err != nil:
		return false, err
	case !exists:
		return false, nil
	case !own && !force:
		return true, &EditedError{path}
	}
	stopped := s.manager.unload(ctx, s.spec)
	if err := remove(path); err != nil {
		return true, err
	}
	return true, errors.Join(stopped, s.manager.forget(ctx))
}

// Start and Stop do so now; what happens at the next login stays.
func (s *Service) Start(ctx context.Context) error { return s.manager.start(ctx, s.spec) }
func (s *Service) Stop(ctx context.Context) error  { return s.manager.stop(ctx, s.spec) }

// State looks at the file and asks the manager, which may not answer.
func (s *Service) State(ctx context.Context) (State, error) {
	path, err := s.manager.file()
	if err != nil {
		return State{}, err
	}
	exists, own, text, err := readOwn(path)
	state := State{File: path, Exists: exists, Edited: exists && !own, Current: text == s.Text()}
	if err == nil {
		s.manager.fill(ctx, s.spec, &state)
	}
	return state, err
}

// ManagerError says what the system's manager answered.
type ManagerError struct {
	Command string // as a person would type it
	Output  string
	Err     error
}

func (e *ManagerError) Error() string {
	text := fmt.Sprintf("%s: %v", e.Command, e.Err)
	if e.Output != "" {
		text += ": " + e.Output
	}
	return text
}

func (e *ManagerError) Unwrap() error { return e.Err }

func run(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.WaitDelay = &limited{w: &out, left: maxOutput}, time.Second
	cmd.Stderr = cmd.Stdout
	err := cmd.Run()
	text := strings.TrimSpace(out.String())
	if err != nil {
		return text, &ManagerError{Command: strings.Join(append([]string{name}, args...), " "), Output: text, Err: err}
	}
	return text, nil
}

// limited keeps the first bytes and swallows the rest.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	keep := p[:min(len(p), l.left)]
	l.left -= len(keep)
	_, _ = l.w.Write(keep) // a buffer takes everything
	return len(p), nil
}
