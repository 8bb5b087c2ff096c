package settings

import (
	"log/slog"
	"strings"
	"time"

	"iap/internal/config"
	"iap/policy/rego"
	"iap/tunnel"
)

// Config is the relay's configuration file, relay.yaml. Relative paths are
// relative to the file. A change takes effect at the next start, except of the
// certificate and the policy, which SIGHUP reads again.
type Config struct {
	// Name is the relay's public DNS name, with a port unless it is 443. Clients
	// sign it, so a relay answers to this name alone. Required.
	Name string `yaml:"name"`
	// Listen is the address of the one public port. Default ":443".
	Listen string `yaml:"listen"`
	// TLS names the certificate. Required.
	TLS TLSConfig `yaml:"tls"`
	// Data is the folder of what must survive a restart: the relay's key, its
	// database, the audit log. Default "/var/lib/iap-relay".
	Data string `yaml:"data"`
	// Instance names this relay among those that share its state: a-z, 0-9, dot and
	// dash. Default: a random id, kept in Data.
	Instance string `yaml:"instance"`
	// Address is where this relay itself is reached, host[:port], if several share
	// Name: clients learn it at login and go there when another relay is down.
	Address string `yaml:"address"`
	// State is the URL of the state store: sqlite:/path (one relay) or
	// postgres://user@host/database (several). Default: sqlite in Data.
	State string `yaml:"state"`
	// Audit configures the audit log.
	Audit AuditConfig `yaml:"audit"`
	// Policy names grants and modules. Required.
	Policy PolicyConfig `yaml:"policy"`
	// Issuers are the identity providers whose tokens are accepted. At least one.
	Issuers []IssuerConfig `yaml:"issuers"`
	// ChannelBinding is exporter (default: TLS ends at the relay) or nonce, for
	// a relay behind something that ends TLS, which is then trusted.
	ChannelBinding tunnel.Binding `yaml:"channel_binding"`
	// Sessions bounds what a principal can hold.
	Sessions SessionsConfig `yaml:"sessions"`
	// Usage says for how long usage statistics are kept.
	Usage UsageConfig `yaml:"usage"`
	// Keys bounds keys for programs.
	Keys KeysConfig `yaml:"keys"`
	// FrontDoor says which web pages may use the front door. Default none.
	FrontDoor FrontDoorConfig `yaml:"front_door"`
	// AdminSocket is the unix socket of `iap-relay admin`. Default: admin.sock
	// in Data. Only root and the relay's own user may use it.
	AdminSocket string `yaml:"admin_socket"`
	// Drain bounds how long a stopping relay waits for running answers.
	// Default 10m.
	Drain config.Duration `yaml:"drain"`

	file string
}

// TLSConfig names the relay's certificate and key, PEM files that are read
// again on SIGHUP.
type TLSConfig struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// AuditConfig says where the audit log goes and how durable a record is.
type AuditConfig struct {
	// Dir is the log's folder. Default: audit in Data.
	Dir string `yaml:"dir"`
	// Sync is write (default: safe against a killed process) or group (adds
	// fdatasync: safe against power loss, slower).
	Sync string `yaml:"sync"`
	// Rotate says when a file of the log is followed by a new one.
	Rotate RotateConfig `yaml:"rotate"`
	// Retain is for how long records are kept, such as 180d: a file is deleted
	// when all it holds is older. What is left can still be verified. Default 0s:
	// forever. At least 24h.
	Retain config.Duration `yaml:"retain"`
	// Sinks are sent a copy of the log. Default none.
	Sinks []SinkConfig `yaml:"sinks"`
	// Recording is for grants that say record: true. Default none.
	Recording RecordingConfig `yaml:"recording"`
}

// RotateConfig bounds one file of the audit log; retention deletes whole files.
type RotateConfig struct {
	// Size is how far a file grows. Default 64MiB, at least 1MiB.
	Size config.Bytes `yaml:"size"`
	// Age is for how long a file is written to. Default 0s: until it is full.
	// At least 1h.
	Age config.Duration `yaml:"age"`
}

// PolicyConfig names the policy files, all watched for changes.
type PolicyConfig struct {
	// Grants is grants.yaml. Required.
	Grants string `yaml:"grants"`
	// Modules are Rego files that extend or replace the built-in module.
	Modules []string `yaml:"modules"`
}

// SessionsConfig bounds sessions and streams.
type SessionsConfig struct {
	// MaxAge ends a session this long after it began even if its token lives
	// longer; a fresh token renews it in place. Default 1h.
	MaxAge config.Duration `yaml:"max_age"`
	// MaxTokenAge ends a session this long after its token was issued, whatever
	// the token's own expiry, and refuses older tokens on the tunnel. Default 1h.
	MaxTokenAge config.Duration `yaml:"max_token_age"`
	// Refresh is how often iapctl is asked to renew a session that is in use:
	// within that time the relay learns what changed at the provider. At least
	// 10s, default 5m.
	Refresh config.Duration `yaml:"refresh"`
	// StreamsPerPrincipal bounds a principal's open streams over all its
	// sessions. Default 1024.
	StreamsPerPrincipal int `yaml:"streams_per_principal"`
	// SessionsPerPrincipal bounds its live sessions. Default 64.
	SessionsPerPrincipal int `yaml:"sessions_per_principal"`
	// Handshakes bounds connections that have not authenticated yet. Default 512.
	Handshakes int `yaml:"handshakes"`
}

// UsageConfig is about the sums that `iapctl usage` shows. They hold who used
// which model how much and when, and nothing of what was said.
type UsageConfig struct {
	// Retain is how long sums by the day are kept; those by the hour are kept for
	// 14 days, those by the minute for two hours. At least 24h. Default 400d.
	Retain config.Duration `yaml:"retain"`
}

// KeysConfig bounds keys for programs.
type KeysConfig struct {
	// MaxUnseen stops a person's keys when the person has not been seen for so
	// long: what the relay knows of groups and claims is as old. Default 720h.
	MaxUnseen config.Duration `yaml:"max_unseen"`
	// PerPrincipal bounds the keys of one principal. Default 20.
	PerPrincipal int `yaml:"per_principal"`
}

// FrontDoorConfig is what the front door lets in beyond programs.
type FrontDoorConfig struct {
	// CORSOrigins are the origins, such as https://chat.example.com, whose pages
	// may send requests and read the answers. Compared exactly. Default none: no
	// page of another site can use the front door.
	CORSOrigins []string `yaml:"cors_origins"`
}

// Names are the spellings of the relay's name that a client may have dialled:
// the port of HTTPS goes without saying.
func (c *Config) Names() []string {
	if name, ok := strings.CutSuffix(c.Name, ":443"); ok {
		return []string{c.Name, name}
	}
	if !strings.Contains(c.Name, ":") {
		return []string{c.Name, c.Name + ":443"}
	}
	return []string{c.Name}
}

// IsShared reports whether other relays may use the same state.
func (c *Config) IsShared() bool {
	return strings.HasPrefix(c.State, "postgres://") || strings.HasPrefix(c.State, "postgresql://")
}

// SessionStreams is the cap of one session where it is below the tunnel's own,
// which knows what the windows of each class cost; 0 leaves it to the tunnel.
func (c *Config) SessionStreams() int {
	const smallest = 128 // of a bulk session
	if c.Sessions.StreamsPerPrincipal < smallest {
		return c.Sessions.StreamsPerPrincipal
	}
	return 0
}

// WorkloadIssuers lists the aliases of the issuers of programs.
func (c *Config) WorkloadIssuers() []string {
	var names []string
	for _, issuer := range c.Issuers {
		if issuer.Workload {
			names = append(names, issuer.Name)
		}
	}
	return names
}

// IssuerNames lists the aliases, in file order.
func (c *Config) IssuerNames() []string {
	names := make([]string, len(c.Issuers))
	for i, issuer := range c.Issuers {
		names[i] = issuer.Name
	}
	return names
}

// Rego is what the policy engine loads. now is nil for the machine's clock.
func (c *Config) Rego(log *slog.Logger, now func() time.Time) rego.Config {
	return rego.Config{GrantsFile: c.Policy.Grants, Modules: c.Policy.Modules, Issuers: c.IssuerNames(), Deadline: policyDeadline, Logger: log, Now: now}
}
