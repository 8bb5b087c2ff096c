package dev

import (
	"net/url"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

func TestLoginsAreOfTheClassAndAgeThatWasAskedFor(t *testing.T) {
	t.Parallel()
	alice := User{Subject: "alice", AMR: []string{"pwd"}, ACR: "bronze", Classes: map[string][]string{"gold": {"pwd", "hwk"}}}
	p, ctx, discovered := startProvider(t, ProviderOptions{Users: []User{alice}})
	config := oauthConfig(p, discovered)
	var got <-chan url.Values
	config.RedirectURL, got = callback(t)
	for name, c := range map[string]struct {
		asked map[string]string
		acr   string
		amr   int
		fresh bool
	}{
		"nothing":                {nil, "bronze", 1, false},
		"a class":                {map[string]string{"acr_values": "platinum gold"}, "gold", 2, true},
		"a class nobody reaches": {map[string]string{"acr_values": "platinum"}, "bronze", 1, false},
		"a young login":          {map[string]string{"max_age": "3600"}, "bronze", 1, true},
		"one of this week":       {map[string]string{"max_age": "604800"}, "bronze", 1, false},
		"a new one":              {map[string]string{"prompt": "login"}, "bronze", 1, true},
	} {
		before := time.Now().Add(-24 * time.Hour).Truncate(time.Second)
		p.RememberLogin("alice", before)
		verifier := oauth2.GenerateVerifier()
		options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(verifier), oidc.Nonce("n")}
		for key, value := range c.asked {
			options = append(options, oauth2.SetAuthURLParam(key, value))
		}
		if err := p.SignIn(ctx, config.AuthCodeURL("s", options...), "alice"); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		query := <-got
		token, err := config.Exchange(ctx, query.Get("code"), oauth2.VerifierOption(verifier))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var claims struct {
			ACR      string   `json:"acr"`
			AMR      []string `json:"amr"`
			AuthTime int64    `json:"auth_time"`
		}
		raw, _ := token.Extra("id_token").(string)
		verifierOf := oidc.NewVerifier(p.Issuer(), oidc.NewRemoteKeySet(ctx, p.Issuer()+keysPath), &oidc.Config{ClientID: p.ClientID(), SupportedSigningAlgs: []string{"RS256", "ES256"}})
		id, err := verifierOf.Verify(ctx, raw)
		if err == nil {
			err = id.Claims(&claims)
		}
		if err != nil || claims.ACR != c.acr || len(claims.AMR) != c.amr || (claims.AuthTime != before.Unix()) != c.fresh {
			t.Errorf("%s: %+v %v", name, claims, err)
		}
	}
}
