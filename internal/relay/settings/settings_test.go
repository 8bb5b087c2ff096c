package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// goodConfig is a relay.yaml with every part that is required.
const goodConfig = `name: iap.example.com
tls: {cert_file: tls.crt, key_file: tls.key}
policy: {grants: grants.yaml}
issuers:
  - {name: corp, url: "https://idp.example.com", client_id: iapctl}
`

func loadText(t *testing.T, text string) (*Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "relay.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(file)
}

func TestEveryMistakeInTheConfigurationNamesItsField(t *testing.T) {
	for field, edit := range map[string][2]string{
		"name":                   {"name: iap.example.com", "name: \"\""},
		"tls":                    {"key_file: tls.key", "key_file: \"\""},
		"policy.grants":          {"grants: grants.yaml", "grants: \"\""},
		"issuers":                {"issuers:\n  - {name: corp, url: \"https://idp.example.com\", client_id: iapctl}", "issuers: []"},
		"issuers[0]: name":       {"name: corp", "name: co/rp"},
		"issuers[0]: url":        {"https://idp.example.com", ""},
		"issuers[0]: client_id":  {"client_id: iapctl", "client_id: \"\""},
		"issuers[0]: audiences":  {"client_id: iapctl", "workload: true"},
		"issuers[0]: token":      {"client_id: iapctl", "client_id: iapctl, token: refresh_token"},
		"audit.sync":             {"policy:", "audit: {sync: never}\npolicy:"},
		"channel_binding":        {"policy:", "channel_binding: none\npolicy:"},
		"sessions":               {"policy:", "sessions: {handshakes: -1}\npolicy:"},
		"sessions.refresh":       {"policy:", "sessions: {refresh: 5s}\npolicy:"},
		"usage.retain":           {"policy:", "usage: {retain: 12h}\npolicy:"},
		"listen":                 {"policy:", "listen: \"443\"\npolicy:"},
		`"soon" is no duration`:  {"policy:", "drain: soon\npolicy:"},
		`unknown key "polizy"`:   {"policy:", "polizy:"},
		`did you mean "issuers"`: {"issuers:", "issuer:"},
	} {
		text := strings.Replace(goodConfig, edit[0], edit[1], 1)
		if text == goodConfig {
			t.Fatalf("%s: nothing was edited", field)
		}
		_, err := loadText(t, text)
		if err == nil || !strings.Contains(err.Error(), field) || !strings.Contains(err.Error(), "relay.yaml") {
			t.Errorf("%s: got %v", field, err)
		}
	}
	if _, err := loadText(t, goodConfig); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func TestDefaultsAreThoseThatTheFieldsPromise(t *testing.T) {
	c, err := loadText(t, goodConfig)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != ":443" || c.Data != "/var/lib/iap-relay" || c.State != "sqlite:/var/lib/iap-relay/state.db" || c.Audit.Dir != "/var/lib/iap-relay/audit" ||
		c.Audit.Sync != "write" || c.ChannelBinding != "exporter" || time.Duration(c.Sessions.MaxAge) != time.Hour ||
		time.Duration(c.Sessions.MaxTokenAge) != time.Hour || time.Duration(c.Sessions.Refresh) != 5*time.Minute || c.Sessions.StreamsPerPrincipal != 1024 ||
		c.Sessions.SessionsPerPrincipal != 64 || c.AdminSocket != "/var/lib/iap-relay/admin.sock" || time.Duration(c.Drain) != 10*time.Minute {
		t.Errorf("%+v", c)
	}
	i := c.Issuers[0]
	if i.Token != "id_token" || strings.Join(i.Audiences, " ") != "iapctl" || len(i.BearerAudiences) != 0 || !strings.Contains(strings.Join(i.Scopes, " "), "openid") {
		t.Errorf("%+v", i)
	}
	if !filepath.IsAbs(c.TLS.CertFile) || !filepath.IsAbs(c.Policy.Grants) {
		t.Errorf("paths are not those of the file's folder: %q %q", c.TLS.CertFile, c.Policy.Grants)
	}
}

func TestSetupListensOnThePortOfTheName(t *testing.T) {
	for name, want := range map[string]string{"iap.example.com": ":443", "iap.example.com:8443": ":8443"} {
		file, err := Setup{Dir: t.TempDir(), Name: name, Issuer: "https://x", ClientID: "c"}.Write()
		if err != nil {
			t.Fatal(err)
		}
		c, err := Load(file)
		if err != nil {
			t.Fatal(err)
		}
		if c.Listen != want || c.Name != name {
			t.Errorf("%s: listens on %s", name, c.Listen)
		}
	}
}

func TestOriginsOfTheConfigurationAreOrigins(t *testing.T) {
	for _, origin := range []string{"*", "chat.example", "https://chat.example/", "https://*.example/x", "ftp://chat.example", "https://a@chat.example", "null"} {
		if err := (FrontDoorConfig{CORSOrigins: []string{origin}}).validate(); err == nil {
			t.Errorf("%q was taken", origin)
		}
	}
}
