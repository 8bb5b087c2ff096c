package dev

import "maps"

// LogoutToken signs what a provider posts to its clients when a login of the first user has ended (OIDC Back-Channel Logout
// 1.0, section 2.4). Claims and options change it as in Mint.
func (p *Provider) LogoutToken(claims map[string]any, options ...MintOptions) string {
	honest := p.honestClaims()
	token := map[string]any{"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}}
	for name := range honest {
		switch name {
		case "iss", "sub", "aud", "iat", "jti", "exp":
		default:
			token[name] = nil
		}
	}
	maps.Copy(token, claims)
	if len(options) == 0 {
		options = []MintOptions{{Header: map[string]any{"typ": "logout+jwt"}}}
	}
	return p.Mint(token, options...)
}
