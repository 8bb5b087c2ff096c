package profile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"iap/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testDirs(t *testing.T) Dirs {
	t.Helper()
	root := t.TempDir()
	d, err := FindDirs(func(k string) string {
		if k == "IAP_CONFIG_DIR" {
			return root
		}
		return ""
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func saved(t *testing.T, d Dirs, name string, s Settings) *Profile {
	t.Helper()
	p, err := d.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	p.Settings = s
	if err := p.Save(); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDirsFollowOwnVariableThenXDGThenHome(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("unix paths")
	}
	for _, c := range []struct {
		env           map[string]string
		config, state string
	}{
		{map[string]string{"IAP_CONFIG_DIR": "/own", "XDG_CONFIG_HOME": "/x", "HOME": "/h"}, "/own", "/own/state"},
		{map[string]string{"XDG_CONFIG_HOME": "/x", "XDG_STATE_HOME": "/s", "HOME": "/h"}, "/x/iap", "/s/iap"},
		{map[string]string{"XDG_CONFIG_HOME": "relative", "HOME": "/h"}, "/h/.config/iap", "/h/.local/state/iap"},
	} {
		d, err := FindDirs(func(k string) string { return c.env[k] })
		if err != nil || d.Config != c.config || d.State != c.state {
			t.Errorf("FindDirs(%v) = %+v, %v", c.env, d, err)
		}
	}
	if _, err := FindDirs(func(string) string { return "" }); err == nil {
		t.Error("no home at all must be an error")
	}
}

func TestNamesCannotLeaveTheDirectory(t *testing.T) {
	d := testDirs(t)
	for _, name := range []string{"", ".", "..", "../x", "a/b", `a\b`, "A", "-a", "_a", "ä", "a\n", strings.Repeat("a", 65), "a:b"} {
		if _, err := d.Open(name); !errors.Is(err, ErrName) {
			t.Errorf("Open(%q) = %v, want ErrName", name, err)
		}
		if err := d.Remove(name); !errors.Is(err, ErrName) {
			t.Errorf("Remove(%q) = %v, want ErrName", name, err)
		}
	}
}

func TestSettingsSurviveWritingAndReading(t *testing.T) {
	d := testDirs(t)
	want := Settings{Relay: "iap.example.com:8443", CAFile: "/tmp/a \"b\": #c.pem", Issuer: "corp"}
	saved(t, d, "work", want)
	p, err := d.Open("work")
	if err != nil || p.Settings != want {
		t.Fatalf("read back %+v, %v", p, err)
	}
	info, err := os.Stat(filepath.Join(d.Config, "profiles", "work", "profile.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
}

func TestUnknownKeyNamesFileLineAndNearestKey(t *testing.T) {
	d := testDirs(t)
	saved(t, d, "work", Settings{Relay: "r"})
	file := filepath.Join(d.Config, "profiles", "work", "profile.yaml")
	if err := os.WriteFile(file, []byte("relay: r\nca_fle: /x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := d.Open("work")
	var e *config.Error
	if !errors.As(err, &e) || e.File != file || e.Line != 2 || !strings.Contains(e.Hint, "ca_file") {
		t.Fatalf("err = %#v", err)
	}
}

func TestCurrentUseListRemove(t *testing.T) {
	d := testDirs(t)
	if name, err := d.Current(); name != Default || err != nil {
		t.Fatalf("Current() = %q, %v", name, err)
	}
	if err := d.Use("work"); !errors.Is(err, ErrUnknown) {
		t.Fatalf("Use of an unknown profile = %v", err)
	}
	saved(t, d, "work", Settings{Relay: "r"})
	saved(t, d, "home", Settings{Relay: "h"})
	if err := d.Use("work"); err != nil {
		t.Fatal(err)
	}
	if name, _ := d.Current(); name != "work" {
		t.Fatalf("Current() = %q", name)
	}
	if names, err := d.List(); err != nil || !reflect.DeepEqual(names, []string{"home", "work"}) {
		t.Fatalf("List() = %v, %v", names, err)
	}
	if err := d.Remove("work"); err != nil {
		t.Fatal(err)
	}
	if name, _ := d.Current(); name != Default {
		t.Errorf("a removed profile stays current: %q", name)
	}
	if err := d.Remove("work"); !errors.Is(err, ErrUnknown) {
		t.Errorf("second Remove = %v", err)
	}
}

func TestStateSurvivesWritingAndReading(t *testing.T) {
	p := saved(t, testDirs(t), "work", Settings{Relay: "r"})
	ctx := context.Background()
	want := State{
		Binding: BindingExporter, RelayKey: "AQID", Ports: map[string]int{"phi3": 11434, "weird name": 3},
		Resources: []Resource{{Name: "phi3", Kind: "model"}},
		Login:     &Login{ID: "1", At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Scopes: []string{"openid"}},
	}
	if err := p.Update(ctx, func(s *State) error { *s = want; return nil }); err != nil {
		t.Fatal(err)
	}
	got, err := p.State()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("read back %+v, %v", got, err)
	}
}

func TestFailedUpdateLeavesStateAsItWas(t *testing.T) {
	p := saved(t, testDirs(t), "work", Settings{Relay: "r"})
	ctx := context.Background()
	if err := p.RememberPort(ctx, "phi3", 11435); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	err := p.Update(ctx, func(s *State) error { s.Ports["phi3"] = 1; return boom })
	if !errors.Is(err, boom) {
		t.Fatalf("err = %v", err)
	}
	if s, _ := p.State(); s.Ports["phi3"] != 11435 {
		t.Errorf("ports = %v", s.Ports)
	}
}

func TestConcurrentUpdatesLoseNothing(t *testing.T) {
	p := saved(t, testDirs(t), "work", Settings{Relay: "r"})
	var wg sync.WaitGroup
	const n = 16
	for i := range n {
		wg.Go(func() {
			if err := p.RememberPort(context.Background(), fmt.Sprintf("r%d", i), 1000+i); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s, err := p.State(); err != nil || len(s.Ports) != n {
		t.Errorf("%d ports kept, want %d (%v)", len(s.Ports), n, err)
	}
}

func TestRelayThatProvesLessIsRefused(t *testing.T) {
	p := saved(t, testDirs(t), "work", Settings{Relay: "r"})
	ctx := context.Background()
	if err := p.Remember(ctx, []byte("key-1"), nil, BindingExporter); err != nil {
		t.Fatal(err)
	}
	if err := p.Remember(ctx, []byte("key-1"), nil, BindingNonce); !errors.Is(err, ErrBindingWeaker) {
		t.Errorf("weaker binding: %v", err)
	}
	if err := p.Remember(ctx, []byte("key-2"), nil, BindingExporter); !errors.Is(err, ErrRelayKeyChanged) {
		t.Errorf("other key: %v", err)
	}
	if s, _ := p.State(); s.Binding != BindingExporter {
		t.Errorf("binding = %q", s.Binding)
	}
}

func TestBindingMayGrowStronger(t *testing.T) {
	p := saved(t, testDirs(t), "work", Settings{Relay: "r"})
	ctx := context.Background()
	for _, binding := range []string{BindingNonce, BindingExporter} {
		if err := p.Remember(ctx, []byte("key"), nil, binding); err != nil {
			t.Fatal(err)
		}
	}
	if s, _ := p.State(); s.Binding != BindingExporter {
		t.Errorf("binding = %q", s.Binding)
	}
}
