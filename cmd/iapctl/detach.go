package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"iap/internal/connect"
	"iap/internal/profile"
)

// connectDetached starts this program once more in the background and passes its report on.
func (a *app) connectDetached(ctx context.Context, p *profile.Profile, o connectOptions, already []connectionDocument) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if err := os.MkdirAll(runningDir(p), 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	stop := a.spinner("Connecting")
	report, err := connect.Background{
		Program: program, Args: o.backgroundArgs(p), Env: a.environ,
		LogFile: filepath.Join(runningDir(p), "connect.log"),
	}.Start(ctx)
	stop()
	if err != nil {
		return backgroundFailure(err)
	}
	var doc connectDocument
	if err := json.Unmarshal([]byte(report), &doc); err != nil {
		return fmt.Errorf("read report of the background process: %w", err)
	}
	doc.Connections = append(already, doc.Connections...)
	return a.reportConnected(doc)
}

// backgroundArgs say the same once more. Secrets are not among them: the local key comes back in the report.
func (o connectOptions) backgroundArgs(p *profile.Profile) []string {
	args := []string{"--profile", p.Name, "-o", "json", "connect", "--background"}
	if p.Settings.CAFile != "" {
		args = append(args, "--ca-file", p.Settings.CAFile)
	}
	if o.noNotify {
		args = append(args, "--no-notify")
	}
	if o.listed { // it reads the list itself
		return args
	}
	if o.port != 0 {
		args = append(args, "--port", strconv.Itoa(o.port))
	}
	for _, v := range o.allowOrigins {
		args = append(args, "--allow-origin", v)
	}
	for _, v := range o.allowHosts {
		args = append(args, "--allow-host", v)
	}
	if o.listen != "" {
		args = append(args, "--listen", o.listen)
	}
	for flag, set := range map[string]bool{
		"--allow-other-users": o.allowOtherUsers, "--local-key": o.localKey, "--for-containers": o.forContainers,
	} {
		if set {
			args = append(args, flag)
		}
	}
	for _, t := range o.targets {
		args = append(args, t.name)
	}
	return args
}

// backgroundFailure passes the background process's own error on: the last line of its narration.
func backgroundFailure(err error) error {
	var ended *connect.BackgroundError
	if !errors.As(err, &ended) {
		return err
	}
	lines := strings.Split(ended.Log, "\n")
	var doc errorDocument
	if json.Unmarshal([]byte(lines[len(lines)-1]), &doc) == nil && doc.Error.Code != "" {
		e := doc.Error
		return &failure{code: e.Code, what: e.Message, next: e.Next, exitCode: e.Exit, cause: err, stepUp: e.StepUp}
	}
	return &failure{code: "background_failed", what: "the process in the background did not come up", next: "run it without --detach", cause: fmt.Errorf("%w: %s", err, ended.Log)}
}
