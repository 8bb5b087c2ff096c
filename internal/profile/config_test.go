package profile

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"iap/internal/config"
)

func wanted(t *testing.T, text string) (Config, error) {
	t.Helper()
	d := Dirs{Config: t.TempDir()}
	if err := os.WriteFile(filepath.Join(d.Config, "config.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return d.Wanted()
}

func TestConnectListIsReadForEachProfile(t *testing.T) {
	c, err := wanted(t, `
connect:
  - resource: phi3
    port: 11434
    allow_origin: [http://localhost:3000]
  - resource: phi3
    profile: work
    for_containers: true
  - resource: embed
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []Connect{
		{Resource: "phi3", Profile: "default", Port: 11434, AllowOrigins: []string{"http://localhost:3000"}},
		{Resource: "embed", Profile: "default"},
	}
	if got := c.Of("default"); !reflect.DeepEqual(got, want) {
		t.Errorf("of the default profile: %+v", got)
	}
	if got := c.Of("work"); len(got) != 1 || !got[0].ForContainers {
		t.Errorf("of work: %+v", got)
	}
	if got := c.Profiles(); !reflect.DeepEqual(got, []string{"default", "work"}) {
		t.Errorf("profiles %v", got)
	}
}

func TestNoConfigurationWantsNothing(t *testing.T) {
	if c, err := (Dirs{Config: t.TempDir()}).Wanted(); err != nil || len(c.Connect) != 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestConnectListIsReadStrictly(t *testing.T) {
	for text, says := range map[string]string{
		"connect: [{resource: a, prot: 1}]":                         "port",
		"conect: []":                                                "connect",
		"connect: [{port: 1}]":                                      "resource is missing",
		"connect: [{resource: a, port: 65536}]":                     "65535",
		"connect: [{resource: a}, {resource: a}]":                   "named twice",
		"connect: [{resource: a, port: 1}, {resource: b, port: 1}]": "named twice",
		"connect: [{resource: a, profile: ../x}]":                   "profile",
		"connect: [{resource: a, listen: localhost}]":               "IP address",
		"connect: [" + strings.Repeat("{resource: a},", 65) + "]":   "more than 64",
	} {
		_, err := wanted(t, text)
		var bad *config.Error
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), says) {
			t.Errorf("%.60s: %v", text, err)
		}
	}
}
