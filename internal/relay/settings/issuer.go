package settings

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"iap/auth"
	"iap/internal/config"
)

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

// Verifier is the issuer as package auth wants it.
func (i IssuerConfig) Verifier() (auth.IssuerConfig, error) {
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
