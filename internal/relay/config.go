package relay

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"iap/auth"
	"iap/internal/cluster"
	"iap/internal/config"
	"iap/internal/usage"
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

// IssuerConfig is one identity provider.
type IssuerConfig struct {
	// Name is the alias that grants use: corp. No slash. Required.
	Name string `yaml:"name"`
	// URL is the issuer, exactly as it stands in its tokens. Required.
	URL string `yaml:"url"`
	// ClientID is the public client that iapctl logs in as. Required unless Workload.
	ClientID string `yaml:"client_id"`
	// PublicClientSecret is for providers that demand one of public clients (Google).
	PublicClientSecret string `yaml:"public_client_secret"`
	// Scopes are asked for at login. Default openid profile email groups offline_access.
	Scopes []string `yaml:"scopes"`
	// Token says which token iapctl presents: id_token (default) or access_token.
	Token string `yaml:"token"`
	// Audience is sent to the provider where it needs one to issue an access token.
	Audience string `yaml:"audience"`
	// Audiences are accepted on the tunnel. Default: ClientID.
	Audiences []string `yaml:"audiences"`
	// BearerAudiences are accepted at the front door; must differ from
	// Audiences. Empty: no front door for this issuer.
	BearerAudiences []string `yaml:"bearer_audiences"`
	// ExtraAudiences are tolerated in a token beside ours (Keycloak: account).
	ExtraAudiences []string `yaml:"extra_audiences"`
	// CAFile holds the certificates to trust for the provider itself, PEM.
	// Default: the system's.
	CAFile string `yaml:"ca_file"`
	// KeysURL is where the provider's keys are, in place of what its discovery
	// document says; KeysFile is a copy of them (JWKS), read again every few minutes,
	// for a provider that the relay cannot reach. At most one of the two.
	KeysURL  string `yaml:"keys_url"`
	KeysFile string `yaml:"keys_file"`
	// AuthorizedParties are accepted as azp besides ClientID.
	AuthorizedParties []string `yaml:"authorized_parties"`
	// Algorithms are the signature algorithms accepted. Default RS256 PS256 ES256 EdDSA.
	Algorithms []string `yaml:"algorithms"`
	// Groups is the JSON pointer of the groups claim. Default /groups.
	Groups string `yaml:"groups"`
	// Claims names further claims for grants: {repo: /repository_id}.
	Claims map[string]string `yaml:"claims"`
	// MFA is asserted (default: by the token's amr, acr or acrs) or by-provider
	// (the provider's own rule vouches; recorded as such).
	MFA string `yaml:"mfa"`
	// MFARequireClaim, with by-provider, must hold: connector_id=corp.
	MFARequireClaim string `yaml:"mfa_require_claim"`
	// MFAValues are the amr, acr or acrs values that count as a second factor.
	MFAValues []string `yaml:"mfa_values"`
	// MFAACR is asked of the provider (acr_values) where a grant wants a second
	// factor and names no class, such as urn:okta:loa:2fa:any. Default none.
	MFAACR string `yaml:"mfa_acr"`
	// Workload marks an issuer of programs (CI, Kubernetes): no login, no key binding.
	Workload bool `yaml:"workload"`
	// MaxTokenAge refuses tokens issued longer ago. Default: their own expiry.
	MaxTokenAge config.Duration `yaml:"max_token_age"`
}

// Defaults, each overridden by its field.
const (
	defaultListen      = ":443"
	defaultData        = "/var/lib/iap-relay"
	defaultMaxAge      = time.Hour        // SECURITY: a session lasts no longer than an hour without a fresh token
	defaultTokenAge    = time.Hour        // likewise, of a provider whose tokens live for a day
	defaultRefresh     = 5 * time.Minute  // SECURITY: what the provider takes back is learnt within it
	defaultStreams     = 1024             // a program with a large pool stays below; a runaway one does not starve others
	defaultSessions    = 64               // two for each iapctl; a shared CI identity has many
	defaultHandshakes  = 512              // memory before authentication: 512 × 64 KiB
	defaultDrain       = 10 * time.Minute // an answer being generated may take that long
	defaultDrainOthers = 30 * time.Second // everything else
)

// resourceName is what a resource may be called: it stands in URLs, grants and
// file names.
var resourceName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// LoadConfig reads and validates relay.yaml.
func LoadConfig(file string) (*Config, error) {
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
	case time.Duration(c.Sessions.Refresh) < refreshPause:
		return fmt.Errorf("sessions.refresh: %s is too often for any provider; at least %s", time.Duration(c.Sessions.Refresh), refreshPause)
	case time.Duration(c.Usage.Retain) < minRetain:
		return errors.New("usage.retain: must be at least 24h: days are summed up")
	case c.Keys.PerPrincipal < 0:
		return errors.New("keys.per_principal: must be at least 1; leave keys: out of the grants to have none")
	case !strings.HasPrefix(c.State, "sqlite:") && !c.isShared():
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
	for i, issuer := range c.Issuers {
		if err := issuer.validate(); err != nil {
			return fmt.Errorf("issuers[%d]: %w", i, err)
		}
	}
	return nil
}

// isShared reports whether other relays may use the same state.
func (c *Config) isShared() bool {
	return strings.HasPrefix(c.State, "postgres://") || strings.HasPrefix(c.State, "postgresql://")
}

func (i IssuerConfig) validate() error {
	switch {
	case i.Name == "" || strings.Contains(i.Name, "/"):
		return fmt.Errorf("name: %q cannot stand in a grant: write a short word such as corp", i.Name)
	case i.URL == "":
		return errors.New("url: missing; copy the issuer from the provider's discovery document")
	case i.ClientID == "" && !i.Workload:
		return errors.New("client_id: missing; people log in with it (programs: workload: true)")
	case len(i.Audiences) == 0:
		return errors.New("audiences: empty; a token made for somebody else would be accepted")
	case i.Token != "id_token" && i.Token != "access_token":
		return fmt.Errorf("token: %q is neither id_token nor access_token", i.Token)
	}
	return nil
}

// verifierConfig is the issuer as package auth wants it.
func (i IssuerConfig) verifierConfig() (auth.IssuerConfig, error) {
	c := auth.IssuerConfig{
		Name: i.Name, URL: i.URL, ClientID: i.ClientID, ClientSecret: i.PublicClientSecret,
		Audiences: i.Audiences, BearerAudiences: i.BearerAudiences, ExtraAudiences: i.ExtraAudiences, AuthorizedParties: i.AuthorizedParties,
		Algorithms: i.Algorithms, Scopes: i.Scopes, GroupsClaim: i.Groups, Claims: i.Claims,
		MFA: i.MFA, MFARequireClaim: i.MFARequireClaim, MFAValues: i.MFAValues,
		KeysURL: i.KeysURL, KeysFile: i.KeysFile, Workload: i.Workload, MaxTokenAge: time.Duration(i.MaxTokenAge),
	}
	if i.KeysFile != "" {
		if _, err := os.Stat(i.KeysFile); err != nil { // later it may be away for a while
			return c, fmt.Errorf("issuer %s: keys_file: %w", i.Name, err)
		}
	}
	if i.CAFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(i.CAFile)
	if err != nil {
		return c, fmt.Errorf("issuer %s: ca_file: %w", i.Name, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return c, fmt.Errorf("issuer %s: ca_file: %s holds no certificate in PEM", i.Name, i.CAFile)
	}
	c.HTTPClient = &http.Client{Transport: auth.NewTransport(&tls.Config{RootCAs: roots})}
	return c, nil
}

// names are the spellings of the relay's name that a client may have dialled:
// the port of HTTPS goes without saying.
func (c *Config) names() []string {
	if name, ok := strings.CutSuffix(c.Name, ":443"); ok {
		return []string{c.Name, name}
	}
	if !strings.Contains(c.Name, ":") {
		return []string{c.Name, c.Name + ":443"}
	}
	return []string{c.Name}
}

// perSource is how many of what is limited one source may have. Behind something
// that ends TLS everybody comes from one source.
func (c *Config) perSource(limit int) int {
	if c.ChannelBinding == tunnel.BindingNonce {
		return maxConnections
	}
	return limit
}

// sessionStreams is the cap of one session where it is below the tunnel's own,
// which knows what the windows of each class cost; 0 leaves it to the tunnel.
func (c *Config) sessionStreams() int {
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

// issuerNames lists the aliases, in file order.
func (c *Config) issuerNames() []string {
	names := make([]string, len(c.Issuers))
	for i, issuer := range c.Issuers {
		names[i] = issuer.Name
	}
	return names
}
