package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const (
	commandGrace   = 10 * time.Second // for a command that was asked to end
	signalExitBase = 128              // shells report a command killed by signal n as 128+n
)

// runCommand runs a program with the resources in its environment and returns its status as a commandStatus.
func (a *app) runCommand(ctx context.Context, command []string, doc connectDocument) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return &failure{code: "command_not_found", what: fmt.Sprintf("there is no command %q", clean(command[0])), next: "check its name and PATH", cause: err}
	}
	// The command ends by itself: Ctrl-C reaches it from the terminal as it reaches us, and it may want to finish something.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), path, command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.err
	cmd.Env = a.commandEnv(doc)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return &failure{code: "command_failed", what: fmt.Sprintf("%q cannot be started", clean(command[0])), next: "check its permissions", cause: err}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // joined below: every way out receives from ended
	for {
		select {
		case err := <-ended:
			return statusOf(err)
		case s := <-signals:
			if s == os.Interrupt && terminal(a.in) {
				continue // the terminal has sent it to the command too
			}
			return a.endCommand(cmd, s, ended)
		}
	}
}

// endCommand passes a signal on and waits; a command that does not heed it is killed.
func (a *app) endCommand(cmd *exec.Cmd, s os.Signal, ended chan error) error {
	if cmd.Process.Signal(s) != nil { // Windows knows no signals
		_ = cmd.Process.Kill()
	}
	grace := time.NewTimer(commandGrace)
	defer grace.Stop()
	select {
	case err := <-ended:
		return statusOf(err)
	case <-grace.C:
		_ = cmd.Process.Kill()
		return statusOf(<-ended)
	}
}

// statusOf is the command's status as a shell would report it.
func statusOf(err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return commandStatus(0)
	case !errors.As(err, &exit):
		return &failure{code: "command_failed", what: "the command could not be waited for", next: "run it again with -v", cause: err}
	case exit.ExitCode() >= 0:
		return commandStatus(exit.ExitCode())
	}
	if ws, ok := exit.Sys().(interface{ Signal() syscall.Signal }); ok {
		return commandStatus(signalExitBase + int(ws.Signal()))
	}
	return commandStatus(exitOwnFailure)
}

// commandEnv is this process's environment with the resources: the first model under the names clients know, each resource
// under its own.
func (a *app) commandEnv(doc connectDocument) []string {
	env := append([]string(nil), a.environ...)
	set := map[string]bool{}
	for _, c := range doc.Connections {
		for name, value := range variablesOf(c) {
			if !set[name] {
				set[name] = true
				env = append(env, name+"="+value)
			}
		}
		own := "IAP_ADDR_" + variableName(c.Resource)
		env = append(env, own+"="+localAddr(c.Port))
	}
	// A proxy from the environment must not be asked for what is on this machine.
	if a.env("HTTP_PROXY")+a.env("http_proxy")+a.env("ALL_PROXY")+a.env("all_proxy") != "" {
		for _, name := range []string{"NO_PROXY", "no_proxy"} {
			env = append(env, name+"="+strings.Trim(a.env(name)+",127.0.0.1,localhost,::1", ","))
		}
	}
	return env
}

func variableName(resource string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(resource))
}
