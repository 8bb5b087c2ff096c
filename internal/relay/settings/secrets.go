package settings

import (
	"net/url"
	"path/filepath"
)

// secretPath is the length beyond which a path is taken for a secret.
const secretPath = 20

// Secrets are the values of this configuration that no report may hold.
func (c *Config) Secrets() []string {
	var all []string
	for _, issuer := range c.Issuers {
		all = append(all, issuer.PublicClientSecret)
	}
	for _, s := range c.Audit.Sinks { // who knows the path of some receivers may write to them
		if u, err := url.Parse(s.URL); err == nil && len(u.RequestURI()) > secretPath {
			all = append(all, u.RequestURI())
		}
	}
	if u, err := url.Parse(c.State); err == nil {
		password, _ := u.User.Password()
		all = append(all, password, u.Query().Get("password"), u.Query().Get("sslpassword"))
	}
	return all
}

// SecretFiles are the files whose contents no report may hold.
func (c *Config) SecretFiles() []string {
	all := []string{c.TLS.KeyFile, filepath.Join(c.Data, "assertion.key")}
	for _, s := range c.Audit.Sinks {
		for _, file := range []string{s.KeyFile, s.SecretFile, s.HeadersFile} {
			if file != "" {
				all = append(all, file)
			}
		}
	}
	keys, err := filepath.Glob(filepath.Join(c.Data, "relay.key*"))
	if err != nil {
		return all // the folder's name has odd brackets
	}
	return append(all, keys...)
}
