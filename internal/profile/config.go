package profile

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"

	"iap/internal/config"
)

const (
	maxConnects = 64    // resources that one user serves
	maxPort     = 65535 // of TCP
)

// Config is CONFIG/config.yaml: what the user wants served without typing it. iapctl reads it and never writes it.
type Config struct {
	Connect []Connect `yaml:"connect"` // served by `iapctl connect` without a name, and by the service
}

// Connect is one resource to serve, with the flags of `iapctl connect` under their own names.
type Connect struct {
	Resource        string   `yaml:"resource"`
	Profile         string   `yaml:"profile"`           // default: the profile called default
	Port            int      `yaml:"port"`              // default: the one remembered; a taken one is an error
	AllowOrigins    []string `yaml:"allow_origin"`      // web origins that may send requests
	AllowHosts      []string `yaml:"allow_host"`        // names that requests may carry as Host
	AllowOtherUsers bool     `yaml:"allow_other_users"` // serve other users of this machine too
	LocalKey        bool     `yaml:"local_key"`         // demand a key from every request
	ForContainers   bool     `yaml:"for_containers"`    // listen for containers too; demands the local key
	Listen          string   `yaml:"listen"`            // listen on this address too; demands the local key
}

// ConfigFile is where Config is read from.
func (d Dirs) ConfigFile() string { return filepath.Join(d.Config, "config.yaml") }

// Wanted reads what the user wants served; no file is an empty Config.
func (d Dirs) Wanted() (Config, error) {
	var c Config
	file := d.ConfigFile()
	data, err := readFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	if err := config.Decode(file, data, &c); err != nil {
		return Config{}, err
	}
	if len(c.Connect) > maxConnects {
		return Config{}, &config.Error{File: file, Text: fmt.Sprintf("connect: more than %d resources", maxConnects)}
	}
	for i := range c.Connect {
		if err := c.complete(i); err != nil {
			return Config{}, &config.Error{File: file, Text: fmt.Sprintf("connect[%d]: %v", i, err)}
		}
	}
	return c, nil
}

// complete fills in the defaults of one entry and judges it.
func (c Config) complete(i int) error {
	e := &c.Connect[i]
	if e.Profile == "" {
		e.Profile = Default
	}
	same := func(other Connect) bool { return other.Profile == e.Profile && other.Resource == e.Resource }
	samePort := func(other Connect) bool { return e.Port != 0 && other.Port == e.Port }
	switch {
	case e.Resource == "":
		return errors.New("resource is missing")
	case CheckName(e.Profile) != nil:
		return CheckName(e.Profile)
	case e.Port < 0 || e.Port > maxPort:
		return fmt.Errorf("port is a number from 1 to %d", maxPort)
	case slices.ContainsFunc(c.Connect[:i], same):
		return fmt.Errorf("%s is named twice", e.Resource)
	case slices.ContainsFunc(c.Connect[:i], samePort):
		return fmt.Errorf("port %d is named twice", e.Port)
	}
	if e.Listen != "" {
		if _, err := netip.ParseAddr(e.Listen); err != nil {
			return fmt.Errorf("listen wants an IP address, not %q", e.Listen)
		}
	}
	return nil
}

// Of are the entries of one profile.
func (c Config) Of(profile string) []Connect {
	return slices.DeleteFunc(slices.Clone(c.Connect), func(e Connect) bool { return e.Profile != profile })
}

// Profiles are the profiles that have entries, sorted.
func (c Config) Profiles() []string {
	var names []string
	for _, e := range c.Connect {
		names = append(names, e.Profile)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
