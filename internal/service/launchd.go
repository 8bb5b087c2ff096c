package service

import (
	"context"
	"encoding/xml"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// labelPrefix makes names unique among all agents of a user, as launchd wants them.
const labelPrefix = "local.iap."

// launchd is the manager of macOS.
type launchd struct {
	name string
	env  func(string) string
	run  runner
}

func (m launchd) label() string  { return labelPrefix + m.name }
func (m launchd) domain() string { return "gui/" + strconv.Itoa(os.Getuid()) }
func (m launchd) target() string { return m.domain() + "/" + m.label() }

func (m launchd) file() (string, error) {
	home := m.env("HOME")
	if !filepath.IsAbs(home) {
		return "", errors.New("no home directory is known")
	}
	return filepath.Join(home, "Library", "LaunchAgents", m.label()+".plist"), nil
}

// text is a property list (launchd.plist(5)): begun at login, begun again 30 s after a failure.
func (m launchd) text(s Spec) string {
	var b strings.Builder
	b.WriteString(xml.Header)
	b.WriteString("<!-- " + mark + " -->\n<!-- Change nothing here: a file that was changed is neither replaced nor removed. -->\n")
	b.WriteString(`<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">` + "\n<plist version=\"1.0\">\n<dict>\n")
	item := func(key, value string) { b.WriteString("\t<key>" + key + "</key>\n\t" + value + "\n") }
	item("Label", plistString(m.label()))
	b.WriteString("\t<key>ProgramArguments</key>\n\t<array>\n")
	for _, arg := range append([]string{s.Program}, s.Args...) {
		b.WriteString("\t\t" + plistString(arg) + "\n")
	}
	b.WriteString("\t</array>\n")
	if len(s.Env) > 0 {
		b.WriteString("\t<key>EnvironmentVariables</key>\n\t<dict>\n")
		for _, kv := range s.Env {
			name, value, _ := strings.Cut(kv, "=")
			b.WriteString("\t\t<key>" + plistText(name) + "</key>\n\t\t" + plistString(value) + "\n")
		}
		b.WriteString("\t</dict>\n")
	}
	item("RunAtLoad", "<true/>")
	item("KeepAlive", "<dict>\n\t\t<key>SuccessfulExit</key>\n\t\t<false/>\n\t</dict>")
	item("ThrottleInterval", "<integer>30</integer>")
	item("ProcessType", "<string>Interactive</string>") // what waits for a person's requests is not slowed down
	item("Umask", "<integer>63</integer>")              // 0077
	b.WriteString("</dict>\n</plist>\n")
	return b.String()
}

func plistString(text string) string { return "<string>" + plistText(text) + "</string>" }

func plistText(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a builder takes everything
	return b.String()
}

func (m launchd) load(ctx context.Context, _ Spec) error {
	path, err := m.file()
	if err != nil {
		return err
	}
	_, _ = m.run(ctx, "launchctl", "bootout", m.target()) // an older file may be loaded
	_, err = m.run(ctx, "launchctl", "bootstrap", m.domain(), path)
	return err
}

func (m launchd) unload(ctx context.Context, _ Spec) error {
	if _, err := m.run(ctx, "launchctl", "print", m.target()); err != nil {
		return nil // it is not loaded
	}
	_, err := m.run(ctx, "launchctl", "bootout", m.target())
	return err
}

func (m launchd) forget(context.Context) error { return nil }

func (m launchd) start(ctx context.Context, s Spec) error {
	if _, err := m.run(ctx, "launchctl", "print", m.target()); err != nil {
		return m.load(ctx, s)
	}
	_, err := m.run(ctx, "launchctl", "kickstart", m.target())
	return err
}

// stop takes the agent out until the next login: launchd starts again what is merely killed.
func (m launchd) stop(ctx context.Context, s Spec) error { return m.unload(ctx, s) }

func (m launchd) fill(ctx context.Context, _ Spec, state *State) {
	state.Reached = true
	out, err := m.run(ctx, "launchctl", "print", m.target())
	if err != nil {
		state.Detail = "not loaded"
		return
	}
	state.Enabled = true
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " = ")
		switch {
		case name == "state" && state.Detail == "":
			state.Detail, state.Running = value, value == "running"
		case name == "pid" && state.PID == 0:
			state.PID, _ = strconv.Atoi(value) // 0 is none
		}
	}
}
