package auth

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json"
	"golang.org/x/oauth2"
)

// metadata is what is read of a provider's discovery document.
type metadata struct {
	Issuer           string `json:"issuer"`
	AuthURL          string `json:"authorization_endpoint"`
	TokenURL         string `json:"token_endpoint"`
	DeviceURL        string `json:"device_authorization_endpoint"`
	RevocationURL    string `json:"revocation_endpoint"`
	KeysURL          string `json:"jwks_uri"`
	IssuerInResponse bool   `json:"authorization_response_iss_parameter_supported"` // RFC 9207
}

// discover fetches the discovery document of an issuer. The document must name
// exactly this issuer (OIDC Discovery 4.3, RFC 8414 3.3), and every address in it
// must be one that parseEndpoint and belongsTo let pass.
func discover(ctx context.Context, c *http.Client, issuer string) (metadata, error) {
	home, err := parseEndpoint(issuer)
	if err != nil {
		return metadata{}, fmt.Errorf("issuer %q: %w", issuer, err)
	}
	body, err := fetch(ctx, c, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return metadata{}, fmt.Errorf("discover issuer: %w", err)
	}
	var m metadata
	if err := json.Unmarshal(body, &m); err != nil {
		return metadata{}, fmt.Errorf("discover issuer %q: no discovery document: %w", issuer, err)
	}
	if m.Issuer != issuer {
		return metadata{}, fmt.Errorf("discover issuer %q: the document is of %q", issuer, m.Issuer)
	}
	if err := m.check(home); err != nil {
		return metadata{}, fmt.Errorf("discover issuer %q: %w", issuer, err)
	}
	return m, nil
}

func (m metadata) check(home *url.URL) error {
	for _, e := range []struct{ name, address string }{
		{"authorization_endpoint", m.AuthURL},
		{"token_endpoint", m.TokenURL},
		{"device_authorization_endpoint", m.DeviceURL},
		{"revocation_endpoint", m.RevocationURL},
		{"jwks_uri", m.KeysURL},
	} {
		if e.address == "" {
			continue
		}
		u, err := parseEndpoint(e.address)
		if err == nil {
			err = belongsTo(home, u)
		}
		if err == nil && u.Scheme != home.Scheme && u.Scheme != "https" {
			err = fmt.Errorf("scheme %q under an issuer of %q", u.Scheme, home.Scheme)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return nil
}

func (m metadata) endpoint() oauth2.Endpoint {
	return oauth2.Endpoint{
		AuthURL: m.AuthURL, TokenURL: m.TokenURL, DeviceAuthURL: m.DeviceURL,
		// A public client has no password to put into a header, and trying
		// both ways would spend a single-use code.
		AuthStyle: oauth2.AuthStyleInParams,
	}
}
