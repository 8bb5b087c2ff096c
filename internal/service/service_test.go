package service

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// nasty are texts that mean something to systemd, to a shell or to XML.
var nasty = []string{`plain`, `with space`, `"quoted" \back\`, `%h %%`, `$HOME ${X}`, `<&>'`, `-->`, `ü;#|`}

func spec() Spec {
	s := Spec{
		Name: "iapctl-work", About: "iapctl connect (100 %)", Program: "/opt/my tools/iapctl",
		Args: append([]string{"--profile", "work"}, nasty...),
	}
	for i, text := range nasty {
		s.Env = append(s.Env, "VALUE_"+string(rune('A'+i))+"="+text)
	}
	return s
}

// system is a manager's program that only notes what it is asked.
type system struct {
	asked  []string
	answer string
	fails  error
}

func (s *system) run(_ context.Context, name string, args ...string) (string, error) {
	s.asked = append(s.asked, strings.Join(append([]string{name}, args...), " "))
	return s.answer, s.fails
}

func home(t *testing.T) func(string) string {
	t.Helper()
	dir := t.TempDir()
	return func(name string) string {
		if name == "HOME" {
			return dir
		}
		return ""
	}
}

func newTest(t *testing.T, goos string, s Spec) (*Service, *system) {
	t.Helper()
	sys := &system{}
	made, err := newFor(goos, s, home(t), sys.run)
	if err != nil {
		t.Fatal(err)
	}
	return made, sys
}

func TestInstallStartsAndUninstallLeavesNothing(t *testing.T) {
	for goos, calls := range map[string][]string{
		"linux": {
			"systemctl --user --no-pager daemon-reload", "systemctl --user --no-pager enable iapctl-work.service",
			"systemctl --user --no-pager restart iapctl-work.service", "systemctl --user --no-pager disable --now iapctl-work.service",
			"systemctl --user --no-pager daemon-reload",
		},
		"darwin": {"bootout", "bootstrap", "print", "bootout"},
	} {
		t.Run(goos, func(t *testing.T) {
			s, sys := newTest(t, goos, spec())
			path, err := s.File()
			if err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			other := filepath.Join(filepath.Dir(path), "other")
			if err := os.WriteFile(other, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := s.Install(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || !s.IsCurrent() {
				t.Errorf("the file: %v, %v", info, err)
			}
			if existed, err := s.Uninstall(t.Context(), false); err != nil || !existed {
				t.Errorf("uninstall: %v, %v", existed, err)
			}
			if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 || left[0].Name() != "other" {
				t.Errorf("left: %v, %v", left, err)
			}
			if existed, err := s.Uninstall(t.Context(), false); err != nil || existed {
				t.Errorf("once more: %v, %v", existed, err)
			}
			if len(sys.asked) != len(calls) {
				t.Fatalf("asked %q", sys.asked)
			}
			for i, want := range calls {
				if !strings.Contains(sys.asked[i], want) {
					t.Errorf("call %d is %q, want %q", i, sys.asked[i], want)
				}
			}
		})
	}
}

func TestUninstallWithoutAManagerLeavesNoLink(t *testing.T) {
	s, sys := newTest(t, "linux", spec())
	if err := s.Install(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	path, _ := s.File()
	wants := filepath.Join(filepath.Dir(path), "default.target.wants")
	if err := os.Mkdir(wants, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"iapctl-work.service": path, "other.service": "/lib/other.service"} {
		if err := os.Symlink(target, filepath.Join(wants, name)); err != nil {
			t.Fatal(err)
		}
	}
	sys.fails = &ManagerError{Command: "systemctl", Err: errors.New("no bus")}
	var failed *ManagerError
	if existed, err := s.Uninstall(t.Context(), false); !existed || !errors.As(err, &failed) {
		t.Errorf("%v, %v", existed, err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the file is left: %v", err)
	}
	if left, err := os.ReadDir(wants); err != nil || len(left) != 1 || left[0].Name() != "other.service" {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestFileThatSomebodyChangedIsLeftAlone(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, path, text string){
		"a line more":    func(t *testing.T, path, text string) { write(t, path, text+"# mine\n") },
		"another hash":   func(t *testing.T, path, text string) { write(t, path, strings.Replace(text, mark, mark+"0", 1)) },
		"another's file": func(t *testing.T, path, _ string) { write(t, path, "[Service]\nExecStart=/bin/true\n") },
		"a link": func(t *testing.T, path, text string) {
			target := filepath.Join(t.TempDir(), "unit")
			write(t, target, text)
			_ = os.Remove(path)
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, sys := newTest(t, "linux", spec())
			if err := s.Install(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			path, _ := s.File()
			change(t, path, s.Text())
			before := len(sys.asked)
			var edited *EditedError
			if err := s.Install(t.Context(), false); !errors.As(err, &edited) {
				t.Errorf("install: %v", err)
			}
			if _, err := s.Uninstall(t.Context(), false); !errors.As(err, &edited) {
				t.Errorf("uninstall: %v", err)
			}
			if len(sys.asked) != before {
				t.Errorf("the manager was asked: %q", sys.asked[before:])
			}
			if state, err := s.State(t.Context()); err != nil || !state.Exists || !state.Edited {
				t.Errorf("state %+v, %v", state, err)
			}
			if err := s.Install(t.Context(), true); err != nil || !s.IsCurrent() {
				t.Errorf("by force: %v", err)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOlderFileOfOursIsReplaced(t *testing.T) {
	s, sys := newTest(t, "linux", spec())
	if err := s.Install(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	next := spec()
	next.Args = append(next.Args, "--no-notify")
	newer := &Service{next, systemd{next.Name, s.manager.(systemd).env, sys.run}}
	if state, err := newer.State(t.Context()); err != nil || state.Current || state.Edited {
		t.Errorf("%+v, %v", state, err)
	}
	if err := newer.Install(t.Context(), false); err != nil || !newer.IsCurrent() {
		t.Error(err)
	}
}

func TestWhatNoFileCanCarryIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Spec){
		"a second line in an argument": func(s *Spec) { s.Args = []string{"a\nExecStartPost=/bin/false"} },
		"a second line in a variable":  func(s *Spec) { s.Env = []string{"A=b\n[Install]"} },
		"a zero byte":                  func(s *Spec) { s.Args = []string{"a\x00b"} },
		"a broken character":           func(s *Spec) { s.Args = []string{"a\xffb"} },
		"a program by its name":        func(s *Spec) { s.Program = "iapctl" },
		"a name that leaves the room":  func(s *Spec) { s.Name = "../iapctl" },
	} {
		s := spec()
		change(&s)
		if _, err := newFor("linux", s, home(t), nil); err == nil {
			t.Errorf("%s is written", name)
		}
	}
	if _, err := newFor("windows", spec(), home(t), nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("windows: %v", err)
	}
}

// What stands in the unit is what systemd reads: its own tool judges it where there is one.
func TestUnitIsSoundAndMeansItsWords(t *testing.T) {
	s, _ := newTest(t, "linux", spec())
	text := s.Text()
	for _, want := range []string{`"%%h %%%%"`, `"$$HOME $${X}"`, `"\"quoted\" \\back\\"`, `Environment="VALUE_E=$HOME ${X}"`, "Restart=on-failure"} {
		if !strings.Contains(text, want) {
			t.Errorf("the unit lacks %s:\n%s", want, text)
		}
	}
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("no systemd-analyze here: its judgement is missing")
		return
	}
	plain := spec()
	plain.Program = "/bin/true" // it looks whether the program is there
	s, _ = newTest(t, "linux", plain)
	unit := filepath.Join(t.TempDir(), "iapctl-work.service")
	write(t, unit, s.Text())
	out, err := exec.CommandContext(t.Context(), tool, "--user", "verify", unit).CombinedOutput()
	if strings.Contains(string(out), "iapctl-work.service") {
		t.Errorf("systemd-analyze: %v\n%s", err, out)
	}
}

func TestLaunchAgentIsXMLAndMeansItsWords(t *testing.T) {
	s, _ := newTest(t, "darwin", spec())
	var words []string
	for d := xml.NewDecoder(strings.NewReader(s.Text())); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v:\n%s", err, s.Text())
		}
		if text, ok := token.(xml.CharData); ok && strings.TrimSpace(string(text)) != "" {
			words = append(words, string(text))
		}
	}
	for _, want := range append(slices.Clone(nasty), "/opt/my tools/iapctl", "--profile", "local.iap.iapctl-work") {
		if !slices.Contains(words, want) {
			t.Errorf("no %q in %q", want, words)
		}
	}
}

func TestStateIsWhatTheManagerSays(t *testing.T) {
	s, sys := newTest(t, "linux", spec())
	sys.answer = "ActiveState=active\nUnitFileState=enabled\nMainPID=812\n"
	if state, err := s.State(t.Context()); err != nil || !state.Running || !state.Enabled || state.PID != 812 || !state.Reached || state.Exists {
		t.Errorf("%+v, %v", state, err)
	}
	sys.answer, sys.fails = "", &ManagerError{Command: "systemctl", Err: errors.New("no bus")}
	if state, err := s.State(t.Context()); err != nil || state.Reached || state.Running {
		t.Errorf("without a manager: %+v, %v", state, err)
	}
	s, sys = newTest(t, "darwin", spec())
	sys.answer = "gui/501/local.iap.iapctl-work = {\n\tstate = running\n\tpid = 77\n}"
	if state, err := s.State(t.Context()); err != nil || !state.Running || state.PID != 77 {
		t.Errorf("%+v, %v", state, err)
	}
}

func TestCallThatSaysTooMuchIsBounded(t *testing.T) {
	out, err := run(t.Context(), "sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; exit 3")
	var failed *ManagerError
	if !errors.As(err, &failed) || len(out) != maxOutput || !strings.HasPrefix(failed.Command, "sh -c") {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}
