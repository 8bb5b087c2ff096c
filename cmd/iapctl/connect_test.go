package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"iap/internal/admin"
	"iap/internal/connect"
	"iap/internal/profile"
)

func connectedDoc() connectDocument {
	return connectDocument{Connections: []connectionDocument{
		connectionOf(connect.Running{Resource: "db", Kind: "tcp", Port: 15000}),
		connectionOf(connect.Running{Resource: "phi3", Kind: "model", Port: 11435, LocalKey: "key"}),
		connectionOf(connect.Running{Resource: "other-model", Kind: "model", Port: 11436}),
	}}
}

func TestCommandSeesTheFirstModelAndEveryAddress(t *testing.T) {
	a, _, _ := testApp(t)
	a.environ = append(a.environ, "HTTP_PROXY=http://proxy:3128", "NO_PROXY=corp", "OPENAI_BASE_URL=http://old")
	got := map[string]string{}
	for _, kv := range a.commandEnv(connectedDoc()) {
		k, v, _ := strings.Cut(kv, "=")
		got[k] = v
	}
	for k, want := range map[string]string{
		"OPENAI_BASE_URL": "http://127.0.0.1:11435/v1", "OPENAI_API_KEY": "key", "ANTHROPIC_BASE_URL": "http://127.0.0.1:11435",
		"OLLAMA_HOST": "http://127.0.0.1:11435", "IAP_ADDR_DB": "127.0.0.1:15000", "IAP_ADDR_OTHER_MODEL": "127.0.0.1:11436",
		"NO_PROXY": "corp,127.0.0.1,localhost,::1",
	} {
		if got[k] != want {
			t.Errorf("%s = %q, want %q", k, got[k], want)
		}
	}
}

func TestCommandsStatusIsReturned(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs sh")
	}
	for script, want := range map[string]commandStatus{"exit 0": 0, "exit 42": 42, "kill -9 $$": 137, "exit 125": 125} {
		a, _, _ := testApp(t)
		err := a.runCommand(context.Background(), []string{"sh", "-c", script}, connectedDoc())
		var status commandStatus
		if !errors.As(err, &status) || status != want {
			t.Errorf("%s: %v, want %d", script, err, want)
		}
		if got := ownFailure(err); !reflect.DeepEqual(got, err) {
			t.Errorf("%s: the command's status became %v", script, got)
		}
	}
}

func TestOwnFailureOfAConnectWithACommandIs125(t *testing.T) {
	a, _, _ := testApp(t)
	err := ownFailure(a.runCommand(context.Background(), []string{"no-such-command-anywhere"}, connectedDoc()))
	if !errors.Is(err, exec.ErrNotFound) || failureOf(err).exit() != exitOwnFailure {
		t.Errorf("%v, exit %d", err, failureOf(err).exit())
	}
}

func TestBackgroundProcessIsToldTheSameAndNoSecret(t *testing.T) {
	o := connectOptions{
		listening: listening{port: 9, localKey: true, allowOrigins: []string{"http://a"}, allowHosts: []string{"h"}, listen: "10.0.0.1"},
		targets:   []target{{name: "phi3"}}, detach: true, noNotify: true,
	}
	p := &profile.Profile{Name: "work", Settings: profile.Settings{CAFile: "/ca.pem"}}
	args := strings.Join(o.backgroundArgs(p), " ")
	for _, want := range []string{"--profile work", "connect --background", "--ca-file /ca.pem", "--port 9", "--allow-origin http://a", "--allow-host h", "--listen 10.0.0.1", "--local-key", "--no-notify"} {
		if !strings.Contains(args, want) {
			t.Errorf("%q lacks %q", args, want)
		}
	}
	if strings.Contains(args, "--detach") || strings.Contains(args, "iap-local-") || !strings.HasSuffix(args, " phi3") {
		t.Errorf("arguments %q", args)
	}
}

func TestBackgroundProcesssErrorIsPassedOn(t *testing.T) {
	line, _ := json.Marshal(errorDocument{Schema: schemaName, Error: errorBody{Code: "login_required", Message: "log in", Next: "iapctl login", Exit: 4}})
	f := failureOf(backgroundFailure(&connect.BackgroundError{Status: 4, Log: "narration\n" + string(line)}))
	if f.code != "login_required" || f.exit() != 4 || f.next != "iapctl login" {
		t.Errorf("%+v", f)
	}
	if f := failureOf(backgroundFailure(&connect.BackgroundError{Status: -1, Log: "panic"})); f.code != "background_failed" {
		t.Errorf("%+v", f)
	}
}

func TestEveryWayBeyondThisUsersLoopbackDemandsTheKey(t *testing.T) {
	for _, o := range []listening{{localKey: true}, {forContainers: true}, {listen: "0.0.0.0"}} {
		if !o.guarded(false) {
			t.Errorf("%+v is open", o)
		}
	}
	if !(listening{}).guarded(true) {
		t.Error("a command's connect is open")
	}
	if (listening{}).guarded(false) {
		t.Error("a plain connect demands a key")
	}
	key := newLocalKey()
	rules := listening{allowHosts: []string{"b"}}.rules(key, []string{"a"})
	sum := sha256.Sum256([]byte(key))
	if !reflect.DeepEqual(rules.KeyHash, sum[:]) || !reflect.DeepEqual(rules.AllowHosts, []string{"a", "b"}) {
		t.Errorf("%+v", rules)
	}
	if newLocalKey() == key {
		t.Error("two keys are equal")
	}
}

func TestScreenOfConnectFitsAndSaysWhatMatters(t *testing.T) {
	a, stdout, _ := testApp(t)
	doc := connectedDoc()
	doc.Relay, doc.Principal = "iap.a-rather-long-name.example.com", "corp/8a7f3c"
	doc.Connections[1].Moved = "11434 is taken (ollama, pid 812)"
	if err := a.reportConnected(doc); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"11434 is taken (ollama, pid 812). phi3 is on 11435 and will stay there.", "export OPENAI_BASE_URL=http://127.0.0.1:11435/v1",
		"phi3 (model) through iap.a-rather-long-name.example.com", "db listens on 127.0.0.1:15000", "corp/8a7f3c",
	} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("screen lacks %q:\n%s", want, stdout)
		}
	}
	for _, line := range strings.Split(stdout.String(), "\n") {
		if len([]rune(line)) > screenWidth {
			t.Errorf("too wide: %q", line)
		}
	}
}

func TestUnknownResourceNamesTheNearest(t *testing.T) {
	_, err := (&app{}).findResource([]admin.Resource{{Name: "phi3"}, {Name: "postgres"}}, "postgers")
	if f := failureOf(err); !strings.Contains(f.what, `did you mean "postgres"`) || f.exit() != exitDenied {
		t.Errorf("%+v", f)
	}
	_, err = (&app{}).findResource(nil, "phi3")
	if f := failureOf(err); !strings.Contains(f.next, "iapctl whoami") {
		t.Errorf("%+v", f)
	}
}

func TestShellsReadNothingInValues(t *testing.T) {
	evil := map[string]string{"X": `a'b$(touch pwn)` + "`c`"}
	for shell, want := range map[string]string{
		"sh": `export X='a'\''b$(touch pwn)` + "`c`'\n", "fish": `set -gx X 'a\'b$(touch pwn)` + "`c`'\n", "powershell": `$env:X = 'a''b$(touch pwn)` + "`c`'\n",
	} {
		if got, err := shellLines(shell, evil); err != nil || got != want {
			t.Errorf("%s: %q, %v", shell, got, err)
		}
	}
}

func TestTCPIsNotOpenedToOthersByAccident(t *testing.T) {
	tcp, model := admin.Resource{Name: "db", Kind: "tcp"}, admin.Resource{Name: "phi3", Kind: "model"}
	for _, o := range []listening{{localKey: true}, {listen: "10.0.0.1"}, {forContainers: true}} {
		if o.checkKind(tcp) == nil || o.checkKind(model) != nil {
			t.Errorf("%+v: tcp %v, model %v", o, o.checkKind(tcp), o.checkKind(model))
		}
	}
	for _, o := range []listening{{}, {listen: "10.0.0.1", allowOtherUsers: true}} {
		if err := o.checkKind(tcp); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
