package settings

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"iap/internal/cluster"
	"iap/internal/config"
	"iap/internal/usage"
	"iap/tunnel"
)

// Defaults, each overridden by its field.
const (
	defaultListen     = ":443"
	defaultData       = "/var/lib/iap-relay"
	defaultMaxAge     = time.Hour           // SECURITY: a session lasts no longer than an hour without a fresh token
	defaultTokenAge   = time.Hour           // likewise, of a provider whose tokens live for a day
	defaultRefresh    = 5 * time.Minute     // SECURITY: what the provider takes back is learnt within it
	defaultStreams    = 1024                // a program with a large pool stays below; a runaway one does not starve others
	defaultSessions   = 64                  // two for each iapctl; a shared CI identity has many
	defaultHandshakes = 512                 // memory before authentication: 512 × 64 KiB
	defaultDrain      = 10 * time.Minute    // an answer being generated may take that long
	defaultMaxUnseen  = 30 * 24 * time.Hour // somebody on leave comes back to keys that work
	defaultKeys       = 20                  // one for each program and machine of a person
)

// policyDeadline bounds one evaluation by the wall clock. An evaluation takes a
// tenth of a millisecond; on a machine whose cores are all busy it waits its
// turn, and that is no reason to deny.
const policyDeadline = time.Second

// MinRefresh is the least time between two refreshes of a session.
const MinRefresh = 10 * time.Second // a client has reason for one when its token is about to end

// minRetain is the least that sums and records are kept for: days are summed up.
const minRetain = 24 * time.Hour

// maxSocketPath is what a unix socket's address holds on every system.
const maxSocketPath = 100

// Load reads and validates relay.yaml.
func Load(file string) (*Config, error) {
	c := &Config{file: file}
	if err := config.Load(file, c); err != nil {
		return nil, err
	}
	c.setDefaults()
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

func (c *Config) setDefaults() {
	setDefault(&c.Listen, defaultListen)
	setDefault(&c.Data, defaultData)
	c.Data = config.Resolve(c.file, c.Data)
	setDefault(&c.State, "sqlite:"+filepath.Join(c.Data, "state.db"))
	setDefault(&c.Audit.Dir, filepath.Join(c.Data, "audit"))
	setDefault(&c.Audit.Sync, "write")
	setDefault(&c.Audit.Rotate.Size, 64<<20)
	setDefault(&c.ChannelBinding, tunnel.BindingExporter)
	setDefault(&c.Sessions.MaxAge, config.Duration(defaultMaxAge))
	setDefault(&c.Sessions.MaxTokenAge, config.Duration(defaultTokenAge))
	setDefault(&c.Sessions.Refresh, config.Duration(defaultRefresh))
	setDefault(&c.Sessions.StreamsPerPrincipal, defaultStreams)
	setDefault(&c.Sessions.SessionsPerPrincipal, defaultSessions)
	setDefault(&c.Sessions.Handshakes, defaultHandshakes)
	setDefault(&c.Usage.Retain, config.Duration(usage.DefaultRetain))
	setDefault(&c.Keys.MaxUnseen, config.Duration(defaultMaxUnseen))
	setDefault(&c.Keys.PerPrincipal, defaultKeys)
	setDefault(&c.AdminSocket, filepath.Join(c.Data, "admin.sock"))
	setDefault(&c.Drain, config.Duration(defaultDrain))
	for _, path := range []*string{&c.TLS.CertFile, &c.TLS.KeyFile, &c.Audit.Dir, &c.Policy.Grants, &c.AdminSocket} {
		*path = config.Resolve(c.file, *path)
	}
	for i := range c.Policy.Modules {
		c.Policy.Modules[i] = config.Resolve(c.file, c.Policy.Modules[i])
	}
	c.resolveSinks()
	c.resolveRecording()
	for i := range c.Issuers {
		issuer := &c.Issuers[i]
		if len(issuer.Audiences) == 0 && issuer.ClientID != "" {
			issuer.Audiences = []string{issuer.ClientID}
		}
		if len(issuer.Scopes) == 0 {
			issuer.Scopes = []string{"openid", "profile", "email", "groups", "offline_access"}
		}
		setDefault(&issuer.Token, "id_token")
		issuer.CAFile, issuer.KeysFile = config.Resolve(c.file, issuer.CAFile), config.Resolve(c.file, issuer.KeysFile)
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate names the first field that cannot work and says what it wants.
func (c *Config) validate() error {
	switch {
	case c.Name == "":
		return errors.New("name: missing; write the DNS name that clients dial, such as iap.example.com")
	case c.TLS.CertFile == "" || c.TLS.KeyFile == "":
		return errors.New("tls: cert_file and key_file are both needed")
	case c.Policy.Grants == "":
		return errors.New("policy.grants: missing; name the grants.yaml file")
	case c.Audit.Sync != "write" && c.Audit.Sync != "group":
		return fmt.Errorf("audit.sync: %q is neither write nor group", c.Audit.Sync)
	case c.Audit.Rotate.Size < 1<<20:
		return errors.New("audit.rotate.size: must be at least 1MiB")
	case c.Audit.Rotate.Age > 0 && time.Duration(c.Audit.Rotate.Age) < time.Hour:
		return errors.New("audit.rotate.age: must be at least 1h; leave it out to fill each file")
	case c.Audit.Retain > 0 && time.Duration(c.Audit.Retain) < minRetain:
		return errors.New("audit.retain: must be at least 24h; leave it out to keep every record")
	case c.ChannelBinding != tunnel.BindingExporter && c.ChannelBinding != tunnel.BindingNonce:
		return fmt.Errorf("channel_binding: %q is neither exporter nor nonce", c.ChannelBinding)
	case c.Sessions.StreamsPerPrincipal < 1 || c.Sessions.SessionsPerPrincipal < 1 || c.Sessions.Handshakes < 1:
		return errors.New("sessions: limits must be at least 1")
	case time.Duration(c.Sessions.Refresh) < MinRefresh:
		return fmt.Errorf("sessions.refresh: %s is too often for any provider; at least %s", time.Duration(c.Sessions.Refresh), MinRefresh)
	case time.Duration(c.Usage.Retain) < minRetain:
		return errors.New("usage.retain: must be at least 24h: days are summed up")
	case c.Keys.PerPrincipal < 0:
		return errors.New("keys.per_principal: must be at least 1; leave keys: out of the grants to have none")
	case !strings.HasPrefix(c.State, "sqlite:") && !c.IsShared():
		return errors.New("state: not a URL of a store; write sqlite:/path/state.db (one relay) or postgres://user@host/database (several)")
	case c.Instance != "" && cluster.CheckInstance(c.Instance) != nil:
		return cluster.CheckInstance(c.Instance)
	case len(c.AdminSocket) > maxSocketPath:
		return fmt.Errorf("admin_socket: %s is longer than the %d bytes a socket's path may have", c.AdminSocket, maxSocketPath)
	case len(c.Issuers) == 0:
		return errors.New("issuers: at least one identity provider is needed")
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("listen: %q is no address: write :443 or 203.0.113.7:443", c.Listen)
	}
	if err := c.FrontDoor.validate(); err != nil {
		return err
	}
	if err := c.Audit.validateRecording(); err != nil {
		return err
	}
	if err := c.Audit.validateSinks(); err != nil {
		return err
	}
	for i, issuer := range c.Issuers {
		if err := issuer.validate(); err != nil {
			return fmt.Errorf("issuers[%d]: %w", i, err)
		}
	}
	return nil
}

func (c FrontDoorConfig) validate() error {
	for _, origin := range c.CORSOrigins {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Scheme+"://"+u.Host != origin {
			return fmt.Errorf("front_door.cors_origins: %q is no origin: write https://chat.example.com", origin)
		}
	}
	return nil
}
