package service

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// systemd is the manager of each user's session on Linux.
type systemd struct {
	name string
	env  func(string) string
	run  runner
}

// unitHead and unitTail stand around ExecStart and the environment. What is switched on below works in a user's manager without
// namespaces, which many kernels deny to users; and it leaves a command for tokens what such commands need.
const (
	unitHead = `# A service of your user's systemd. "iapctl service uninstall" removes it.
# ` + mark + `
# Change nothing here: a file that was changed is neither replaced nor removed.
# Your own settings go into a drop-in: systemctl --user edit NAME

[Unit]
Description=ABOUT
Documentation=man:systemd.service(5)
StartLimitIntervalSec=0

[Service]
Type=exec
`
	unitTail = `Restart=on-failure
RestartSec=30
RestartPreventExitStatus=2
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallArchitectures=native

[Install]
WantedBy=default.target
`
)

func (m systemd) unit() string { return m.name + ".service" }

func (m systemd) file() (string, error) {
	dir := m.env("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		home := m.env("HOME")
		if !filepath.IsAbs(home) {
			return "", errors.New("no home directory is known")
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "systemd", "user", m.unit()), nil
}

func (m systemd) text(s Spec) string {
	var b strings.Builder
	b.WriteString(strings.NewReplacer("NAME", m.unit(), "ABOUT", strings.ReplaceAll(s.About, "%", "%%")).Replace(unitHead))
	for _, kv := range s.Env {
		b.WriteString("Environment=" + unitQuote(kv, false) + "\n")
	}
	b.WriteString("ExecStart=" + unitQuote(s.Program, false))
	for _, arg := range s.Args {
		b.WriteString(" " + unitQuote(arg, true))
	}
	b.WriteString("\n" + unitTail)
	return b.String()
}

// unitQuote makes a word of a unit file that means the text and nothing else (systemd.syntax(7), systemd.service(5)): no specifiers,
// and in arguments no variables. Control characters have been refused before.
func unitQuote(text string, argument bool) string {
	text = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%").Replace(text)
	if argument {
		text = strings.ReplaceAll(text, "$", "$$")
	}
	return `"` + text + `"`
}

func (m systemd) ctl(ctx context.Context, args ...string) (string, error) {
	return m.run(ctx, "systemctl", append([]string{"--user", "--no-pager"}, args...)...)
}

func (m systemd) load(ctx context.Context, _ Spec) error {
	if _, err := m.ctl(ctx, "daemon-reload"); err != nil {
		return err
	}
	if _, err := m.ctl(ctx, "enable", m.unit()); err != nil {
		return err
	}
	_, err := m.ctl(ctx, "restart", m.unit()) // what runs with an older file ends
	return err
}

func (m systemd) unload(ctx context.Context, _ Spec) error {
	_, err := m.ctl(ctx, "disable", "--now", m.unit())
	return err
}

// forget also takes the link away that enabling made, should the manager not have been there to do it.
func (m systemd) forget(ctx context.Context) error {
	path, err := m.file()
	if err != nil {
		return err
	}
	link := filepath.Join(filepath.Dir(path), "default.target.wants", m.unit())
	if target, err := os.Readlink(link); err == nil && target == path {
		_ = os.Remove(link) // it leads nowhere now: one that stays does no harm
	}
	_, err = m.ctl(ctx, "daemon-reload")
	return err
}

func (m systemd) start(ctx context.Context, _ Spec) error {
	_, err := m.ctl(ctx, "start", m.unit())
	return err
}

func (m systemd) stop(ctx context.Context, _ Spec) error {
	_, err := m.ctl(ctx, "stop", m.unit())
	return err
}

func (m systemd) fill(ctx context.Context, _ Spec, state *State) {
	out, err := m.ctl(ctx, "show", "--property=ActiveState,UnitFileState,MainPID", m.unit())
	if err != nil {
		return
	}
	state.Reached = true
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "ActiveState":
			state.Detail, state.Running = value, value == "active" || value == "reloading"
		case "UnitFileState":
			state.Enabled = value == "enabled"
		case "MainPID":
			state.PID, _ = strconv.Atoi(value) // 0 is none
		}
	}
	_, err = os.Stat("/var/lib/systemd/linger/" + filepath.Base(m.env("USER")))
	state.Lingers = err == nil && m.env("USER") != ""
}
