package dev

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// The paths of the provider. Pages for people are ours, the rest is served by op.
const (
	discoveryPath  = "/.well-known/openid-configuration"
	keysPath       = "/keys"
	authorizePath  = "/authorize"
	callbackPath   = "/authorize/callback"
	tokenPath      = "/token"
	deviceAuthPath = "/device_authorization"
	revokePath     = "/revoke"
	userinfoPath   = "/userinfo"
	loginPath      = "/login"
	devicePath     = "/device"
)

func newProtocol(issuer string, s *store, o ProviderOptions) (*op.Provider, error) {
	config := &op.Config{
		DefaultLogoutRedirectURI: "/",

		CodeMethodS256:        true,
		AuthMethodPost:        true,
		GrantTypeRefreshToken: true,
		SupportedScopes:       scopes(),
		SupportedClaims: []string{
			"iss", "sub", "aud", "azp", "exp", "iat", "auth_time", "nonce", "amr", "acr", "sid",
			"name", "preferred_username", "email", "email_verified", "groups",
		},
		DeviceAuthorization: op.DeviceAuthorizationConfig{
			Lifetime: o.DeviceLifetime, PollInterval: o.Interval, UserFormPath: devicePath, UserCode: op.UserCodeBase20,
		},
	}
	if _, err := rand.Read(config.CryptoKey[:]); err != nil {
		return nil, err
	}
	inner := op.NewAES256GCMCrypto(config.CryptoKey, "")
	return op.NewProvider(config, s, op.StaticIssuer(issuer),
		op.WithAllowInsecure(), // an http issuer; the listener is loopback, listenLoopback has seen to it
		op.WithCORSOptions(nil),
		op.WithCrypto(accessTokens{inner, s}),
		op.WithCustomEndpoints(op.NewEndpoint(authorizePath), op.NewEndpoint(tokenPath), op.NewEndpoint(userinfoPath),
			op.NewEndpoint(revokePath), op.NewEndpoint("/end_session"), op.NewEndpoint(keysPath)),
		op.WithCustomDeviceAuthorizationEndpoint(op.NewEndpoint(deviceAuthPath)),
	)
}

// handler is the whole provider. Who asks for another host is a page that rebinds its name to loopback, and a browser's cross-origin
// POST is a page that would approve a device for its visitor: both are refused.
func (p *Provider) handler(host string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+discoveryPath, p.discovery)
	mux.Handle("POST "+tokenPath, p.pollGate(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.op.ServeHTTP(w, r.WithContext(withIssuance(r.Context())))
	})))
	mux.Handle("POST "+deviceAuthPath, withWish(p.op))
	mux.HandleFunc("GET "+devicePath, p.showDevice)
	mux.HandleFunc("POST "+devicePath, p.decideDevice)
	mux.HandleFunc("GET "+loginPath, p.showLogin)
	mux.HandleFunc("POST "+loginPath, p.decideLogin)
	mux.Handle(authorizePath, p.withIssuer(p.op))
	mux.Handle(callbackPath, p.withIssuer(p.op))
	mux.HandleFunc("GET /{$}", p.showHome)
	mux.Handle("/", p.op)

	guarded := http.NewCrossOriginProtection().Handler(p.scripted(mux))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != host {
			http.Error(w, "this development provider answers to "+host+" only", http.StatusMisdirectedRequest)
			return
		}
		guarded.ServeHTTP(w, r)
	})
}

// endpointOf classifies a request for counting and scripting.
func endpointOf(r *http.Request) Endpoint {
	switch r.URL.Path {
	case discoveryPath:
		return EndpointDiscovery
	case keysPath:
		return EndpointKeys
	case authorizePath, callbackPath:
		return EndpointAuthorize
	case deviceAuthPath:
		return EndpointDeviceAuthorization
	case revokePath:
		return EndpointRevocation
	case userinfoPath:
		return EndpointUserinfo
	case devicePath, loginPath, "/":
		return EndpointPage
	case tokenPath:
		switch r.PostFormValue("grant_type") {
		case grantDevice:
			return EndpointDevicePoll
		case string(oidc.GrantTypeRefreshToken):
			return EndpointRefresh
		case string(oidc.GrantTypeCode):
			return EndpointCode
		}
	}
	return EndpointOther
}

// discovery is op's document without the grants nobody can use here, and with what RFC 9207 adds.
func (p *Provider) discovery(w http.ResponseWriter, r *http.Request) {
	d := op.CreateDiscoveryConfig(op.ContextWithIssuer(r.Context(), p.issuer), p.op, p.store)
	d.ResponseTypesSupported = []string{"code"}
	d.ResponseModesSupported = []string{"query"}
	d.GrantTypesSupported = []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken, oidc.GrantTypeDeviceCode}
	d.RevocationEndpointAuthSigningAlgValuesSupported, d.IntrospectionEndpointAuthSigningAlgValuesSupported = nil, nil
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(struct {
		*oidc.DiscoveryConfiguration
		IssParameter bool `json:"authorization_response_iss_parameter_supported"`
	}{d, true})
}

// withIssuer adds the iss parameter of RFC 9207 to each authorization response that leaves through h.
func (p *Provider) withIssuer(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(&issWriter{w, p.issuer}, r)
	})
}

// issWriter changes the Location of an authorization response: a redirect that carries a code or an error.
type issWriter struct {
	http.ResponseWriter
	issuer string
}

func (w *issWriter) WriteHeader(status int) {
	if target, err := url.Parse(w.Header().Get("Location")); err == nil && status/100 == 3 {
		query := target.Query()
		if query.Has("code") || query.Has("error") {
			query.Set("iss", w.issuer)
			target.RawQuery = query.Encode()
			w.Header().Set("Location", target.String())
		}
	}
	w.ResponseWriter.WriteHeader(status)
}
