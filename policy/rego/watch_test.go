package rego

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"iap/policy"
)

const closedGrants = `
grants:
  - name: closed
    to: ["user:corp/nobody"]
    resources: ["*"]
    actions: [chat]
`

func overwrite(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace puts a file into place by renaming, as careful tools do.
func replace(t testing.TB, path, text string) {
	t.Helper()
	overwrite(t, path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

type attempt struct {
	revision string
	err      error
}

// watched runs Watch on a policy and hands over its attempts.
func watched(t *testing.T, cfg Config) (*Engine, <-chan attempt) {
	t.Helper()
	e, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	attempts := make(chan attempt, 64)
	var done sync.WaitGroup
	done.Go(func() {
		if err := e.Watch(ctx, func(revision string, err error) { attempts <- attempt{revision, err} }); err != nil {
			t.Errorf("watch: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return e, attempts
}

// next waits for an attempt that ends as wanted; others may come before it.
func next(t *testing.T, attempts <-chan attempt, good bool) attempt {
	t.Helper()
	for {
		select {
		case a := <-attempts:
			if (a.err == nil) == good {
				return a
			}
		case <-time.After(time.Minute):
			t.Fatalf("no attempt (good: %t)", good)
		}
	}
}

func allows(t *testing.T, e *Engine) bool {
	t.Helper()
	return e.Decide(t.Context(), chat(person("ann"), "phi3", "x")).Allow
}

func TestPO05WatchFollowsEveryWayOfReplacingTheFile(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, file, text string){
		"written in place": func(t *testing.T, file, text string) { overwrite(t, file, text) },
		"renamed over":     func(t *testing.T, file, text string) { replace(t, file, text) },
		"deleted and written": func(t *testing.T, file, text string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			overwrite(t, file, text)
		},
		"directory replaced": func(t *testing.T, file, text string) {
			dir := filepath.Dir(file)
			if err := os.Rename(dir, dir+".old"); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			overwrite(t, file, text)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "etc")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			cfg := Config{GrantsFile: write(t, dir, "grants.yaml", openGrants), Issuers: []string{"corp", "ci"}, Deadline: slowMachine}
			e, attempts := watched(t, cfg)
			for _, step := range []struct {
				text  string
				allow bool
			}{{closedGrants, false}, {openGrants, true}, {closedGrants, false}} {
				change(t, cfg.GrantsFile, step.text)
				a := next(t, attempts, true)
				if allows(t, e) != step.allow || a.revision != e.Revision() {
					t.Fatalf("allow is not %t after the change", step.allow)
				}
				_ = os.RemoveAll(dir + ".old")
			}
		})
	}
}

func TestPO05WatchFollowsSwappedLinks(t *testing.T) {
	root := t.TempDir()
	generation := func(name, text string) string {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		overwrite(t, filepath.Join(dir, "grants.yaml"), text)
		return name
	}
	swap := func(target string) {
		if err := os.Symlink(target, filepath.Join(root, "..data.new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(root, "..data.new"), filepath.Join(root, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	swap(generation("..1", openGrants))
	if err := os.Symlink("..data/grants.yaml", filepath.Join(root, "grants.yaml")); err != nil {
		t.Fatal(err)
	}
	e, attempts := watched(t, Config{GrantsFile: filepath.Join(root, "grants.yaml"), Issuers: []string{"corp", "ci"}, Deadline: slowMachine})
	swap(generation("..2", closedGrants))
	next(t, attempts, true)
	if allows(t, e) {
		t.Fatal("the old generation decides")
	}
	replace(t, filepath.Join(root, "..2", "grants.yaml"), openGrants) // behind the link, without a swap
	next(t, attempts, true)
	if !allows(t, e) {
		t.Fatal("a change behind the link is missed")
	}
}

func TestPO05BrokenPolicyKeepsTheOldOne(t *testing.T) {
	for name, breakIt := range map[string]func(t *testing.T, cfg Config){
		"half written": func(t *testing.T, cfg Config) { overwrite(t, cfg.GrantsFile, closedGrants[:40]) },
		"empty":        func(t *testing.T, cfg Config) { overwrite(t, cfg.GrantsFile, "") },
		"deleted": func(t *testing.T, cfg Config) {
			if err := os.Remove(cfg.GrantsFile); err != nil {
				t.Fatal(err)
			}
		},
		"unreadable": func(t *testing.T, cfg Config) {
			if err := os.Chmod(cfg.GrantsFile, 0); err != nil || os.Geteuid() == 0 {
				t.Skip("permissions do not bind this user")
			}
		},
		"broken module": func(t *testing.T, cfg Config) { write(t, cfg.Modules[0], "late.rego", "package iap\n\ndeny contains") },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t, openGrants, map[string]string{"own.rego": "package iap\n\ndeny contains \"x\" if input.model == \"secret\"\n"})
			e, attempts := watched(t, cfg)
			before := e.Revision()
			breakIt(t, cfg)
			a := next(t, attempts, false)
			if !allows(t, e) || e.Revision() != before || a.revision != before {
				t.Fatalf("the old policy does not stand: %+v", a)
			}
			_ = os.Remove(filepath.Join(cfg.Modules[0], "late.rego"))
			replace(t, cfg.GrantsFile, closedGrants)
			next(t, attempts, true)
			if allows(t, e) {
				t.Fatal("the mended policy is not in place")
			}
		})
	}
}

func TestMendedToTheSamePolicyIsReported(t *testing.T) {
	cfg := config(t, openGrants, nil)
	e, attempts := watched(t, cfg)
	before := e.Revision()
	overwrite(t, cfg.GrantsFile, "grants: [")
	next(t, attempts, false)
	overwrite(t, cfg.GrantsFile, openGrants)
	if a := next(t, attempts, true); a.revision != before {
		t.Fatalf("got %+v", a)
	}
}

func TestWatchFindsWhatChangedBeforeIt(t *testing.T) {
	cfg := config(t, openGrants, nil)
	e, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, cfg.GrantsFile, closedGrants)
	ctx, cancel := context.WithCancel(t.Context())
	onReload := func(string, error) {
		if err := e.Reload(ctx); err != nil { // the callback may use the engine
			t.Errorf("reload: %v", err)
		}
		cancel()
	}
	if err := e.Watch(ctx, onReload); err != nil || allows(t, e) {
		t.Fatalf("watch: %v", err)
	}
}

func TestReloadUnderLoadGivesWholePolicies(t *testing.T) {
	grants := func(n string) string {
		return strings.ReplaceAll(openGrants, "actions: [chat, embed]", "actions: [chat, embed]\n    priority: "+n)
	}
	cfg := config(t, grants("1"), nil)
	e, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	revisions := map[string]int{e.Revision(): 1}
	overwrite(t, cfg.GrantsFile, grants("2"))
	if err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	revisions[e.Revision()] = 2

	var workers sync.WaitGroup
	stop := make(chan struct{})
	for worker := range 8 {
		workers.Go(func() {
			in := chat(person("ann"), "phi3", "x")
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				in.Principal.Subject = string(rune('a'+worker)) + string(rune('a'+n%26))
				d := e.Decide(context.Background(), in)
				if !d.Allow || revisions[d.Revision] != d.Priority {
					t.Errorf("a decision of two policies: %+v", d)
					return
				}
				if x := e.Explain(context.Background(), in); n%50 == 0 && (len(x.Grants) != 1 || revisions[x.Decision.Revision] != x.Decision.Priority) {
					t.Errorf("an explanation of two policies: %+v", x)
					return
				}
			}
		})
	}
	for n := range 20 {
		replace(t, cfg.GrantsFile, grants([]string{"1", "2"}[n%2]))
		if err := e.Reload(t.Context()); err != nil {
			t.Errorf("reload: %v", err)
		}
		if d := e.Decide(t.Context(), chat(policy.Principal{Issuer: "corp", Subject: "fresh"}, "phi3", "x")); d.Priority != n%2+1 {
			t.Errorf("after reload %d an old answer: %+v", n, d)
		}
	}
	close(stop)
	workers.Wait()
}
