package settings

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"text/template"

	"iap/internal/config"
)

// Setup is what `iap-relay init` asks to write the first configuration.
type Setup struct {
	Dir      string // folder of relay.yaml and grants.yaml
	Name     string // the relay's public name, with a port unless it is 443
	Listen   string // default :443, or the port of Name
	Issuer   string // URL of the identity provider
	Alias    string // what grants call it
	ClientID string
	CertFile string
	KeyFile  string
	Data     string // default /var/lib/iap-relay
	// Group is the first grant's group; empty leaves a commented example.
	Group    string
	Resource string
	// Grants, if set, is written in place of the sample.
	Grants string
}

// Write writes relay.yaml and grants.yaml, never over existing files, and
// returns the path of relay.yaml.
func (s Setup) Write() (string, error) {
	if s.Name == "" || s.Issuer == "" || s.ClientID == "" {
		return "", errors.New("name, issuer and client id are all needed")
	}
	setDefault(&s.Alias, "corp")
	setDefault(&s.Data, defaultData)
	setDefault(&s.CertFile, "tls.crt")
	setDefault(&s.KeyFile, "tls.key")
	setDefault(&s.Resource, "phi3")
	if s.Listen == "" {
		s.Listen = defaultListen
		if i := strings.LastIndexByte(s.Name, ':'); i >= 0 {
			s.Listen = s.Name[i:]
		}
	}
	grants := s.Grants
	if grants == "" {
		grants = fill(grantsTemplate, s)
	}
	relayFile := filepath.Join(s.Dir, "relay.yaml")
	if err := config.WriteNew(relayFile, []byte(fill(relayTemplate, s)), 0o600); err != nil {
		return "", fmt.Errorf("write relay.yaml: %w", err)
	}
	if err := config.WriteNew(filepath.Join(s.Dir, "grants.yaml"), []byte(grants), 0o600); err != nil {
		return "", fmt.Errorf("write grants.yaml: %w", err)
	}
	return relayFile, nil
}

func fill(text string, s Setup) string {
	var b strings.Builder
	template.Must(template.New("").Parse(text)).Execute(&b, s) //nolint:errcheck // a fixed template into memory
	return b.String()
}

const relayTemplate = `# The relay. "iap-relay check" reads this file and tells what is wrong.

name: {{.Name}} # what clients dial; they sign it
listen: "{{.Listen}}"
tls: # read again on SIGHUP
  cert_file: {{.CertFile}}
  key_file: {{.KeyFile}}
data: {{.Data}} # keys, database, audit log

policy:
  grants: grants.yaml # watched: a change takes effect at once

issuers:
  - name: {{.Alias}} # what grants call it: group:{{.Alias}}/…
    url: {{.Issuer}}
    client_id: {{.ClientID}}
    # scopes: [openid, profile, email, groups, offline_access]
    # public_client_secret: …      # Google wants one even of a public client
    # audiences: [{{.ClientID}}]   # of tokens on the tunnel; the client id if left out
    # bearer_audiences: [iap-api]  # of tokens at https://relay/r/RESOURCE/…; none if left out
    # groups: /groups              # JSON pointer of the groups claim
    # mfa: by-provider             # the provider demands a second factor and says so in no claim
    # mfa_acr: phr                 # what to ask the provider for where a grant wants a second factor
    # ca_file: idp-ca.pem          # for a provider whose certificate the system does not trust

# sessions: {max_age: 1h, max_token_age: 1h, refresh: 5m, streams_per_principal: 1024}
# keys: {per_principal: 20, max_unseen: 720h}  # keys for programs, where a grant allows them
# usage: {retain: 400d}                        # for how long it is known who used how much
# front_door: {cors_origins: ["https://chat.example.com"]}  # web pages that may use https://relay/r/RESOURCE/…
# audit: {sync: group}    # adds fdatasync: safe against power loss as well
# channel_binding: nonce  # only behind something that ends TLS, which is then trusted
`

const grantsTemplate = `# Who may do what. The first grant that allows decides; what no grant allows is
# denied. "iapctl whoami" prints the lines to paste under "to".
version: 1

grants:
  - name: first-users
{{- if .Group}}
    to: [{{printf "group:%s/%s" .Alias .Group | printf "%q"}}]
{{- else}}
    to: ["any:{{.Alias}}"] # everybody the provider lets in: put a group here
{{- end}}
    resources: [{{.Resource}}]
    actions: [chat, complete, embed, tokenize, list-models, health]
    # models: ["phi3:*"]
    # require: {mfa: true, max_auth_age: 12h}
    # limits: {requests: 60/1m, tokens: 200000/24h, concurrent: 4, contact: "#ml-platform"}
    # keys: {max_ttl: 90d} # iapctl keys create may make keys for programs

# Administrators, and nobody else.
# admins: ["user:{{.Alias}}/SUBJECT"]
`
