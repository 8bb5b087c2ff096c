package dev

import (
	"maps"
	"time"
)

// Form is a token as a platform gives it to a program: header and claims, without the times, which MintForm adds. The forms of
// this file have the members of the real ones, and no others.
type Form struct {
	Header map[string]any // beside alg and kid
	Claims map[string]any // without iss, iat, nbf and exp
	// Lifetime is from iat to exp; Early is how long before iat the token is valid (nbf), -1 where the platform leaves nbf out.
	Lifetime, Early time.Duration
}

// With is the form with some claims changed; a nil value removes a claim.
func (f Form) With(changes map[string]any) Form {
	f.Claims = maps.Clone(f.Claims)
	maps.Copy(f.Claims, changes)
	return f
}

// MintForm signs a token of the form with the live key. Claims may hold the times too, for a token of another moment.
func (p *Provider) MintForm(f Form) string {
	now := time.Now()
	all := map[string]any{"iss": p.issuer, "iat": now.Unix(), "exp": now.Add(f.Lifetime).Unix()}
	if f.Early >= 0 {
		all["nbf"] = now.Add(-f.Early).Unix()
	}
	overlay(all, f.Claims)
	header := map[string]any{"typ": nil}
	maps.Copy(header, f.Header)
	return p.Mint(nil, MintOptions{Header: header, Payload: mustJSON(all)})
}

// GitHubActions is the token of a job of octo-org/octo-repo in the environment production, asked for with this audience. Ids are
// strings, and all claims but the times are.
func GitHubActions(audience string) Form {
	const workflow = "octo-org/octo-repo/.github/workflows/evaluate.yml@refs/heads/main"
	const commit = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b"
	return Form{
		Header: map[string]any{"typ": "JWT", "x5t": "eBZ_cn3sXYAd0ch4THBKHIgOwOE"}, Lifetime: 5 * time.Minute, Early: 10 * time.Minute,
		Claims: map[string]any{
			"jti": randomID(), "sub": "repo:octo-org/octo-repo:environment:production", "aud": audience,
			"repository": "octo-org/octo-repo", "repository_id": "456789", "repository_owner": "octo-org", "repository_owner_id": "123456",
			"repository_visibility": "private", "ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "true", "sha": commit,
			"head_ref": "", "base_ref": "", "event_name": "push", "environment": "production", "environment_node_id": "EN_kwDOABCD",
			"actor": "octocat", "actor_id": "12", "workflow": "evaluate", "workflow_ref": workflow, "workflow_sha": commit,
			"job_workflow_ref": workflow, "job_workflow_sha": commit, "check_run_id": "50607080901",
			"run_id": "17263544321", "run_number": "10", "run_attempt": "1", "runner_environment": "github-hosted", "enterprise": "octo", "enterprise_id": "2",
		},
	}
}

// GitHubImmutable is the same job in a repository whose subjects carry ids, as those made since June 2026 do.
func GitHubImmutable(audience string) Form {
	return GitHubActions(audience).With(map[string]any{"sub": "repo:octo-org@123456/octo-repo@456789:environment:production"})
}

// Kubernetes is the projected token of a pod of the service account evaluator in the namespace ml. Its header has no typ.
func Kubernetes(audience string) Form {
	return Form{
		Lifetime: time.Hour,
		Claims: map[string]any{
			"jti": "e51f1fbc-4733-4b85-a59f-ba80c0523874", "sub": "system:serviceaccount:ml:evaluator", "aud": []string{audience},
			"kubernetes.io": map[string]any{
				"namespace":      "ml",
				"node":           map[string]any{"name": "worker-1", "uid": "517eb86e-b863-451b-bf70-86cb61439a3a"},
				"pod":            map[string]any{"name": "evaluator-7d9f", "uid": "0d8b260e-ef0e-45fb-be8e-ff44f97722e8"},
				"serviceaccount": map[string]any{"name": "evaluator", "uid": "e6a8680e-d103-4cce-80ea-03acbbeacf7d"},
			},
		},
	}
}

// Keycloak is an access token of client credentials. account stands beside the audience that a mapper adds.
func Keycloak(audience, client string) Form {
	return Form{
		Header: map[string]any{"typ": "JWT"}, Lifetime: 5 * time.Minute, Early: -1,
		Claims: map[string]any{
			"jti": "trrtcc:" + randomID(), "sub": "d952cf23-bf92-4c8f-a3ff-4972b4f2bc5b", "aud": []string{audience, "account"}, "typ": "Bearer",
			"azp": client, "client_id": client, "preferred_username": "service-account-" + client, "acr": "1", "allowed-origins": []string{"/*"},
			"realm_access":    map[string]any{"roles": []string{"default-roles-acme", "offline_access", "uma_authorization"}},
			"resource_access": map[string]any{"account": map[string]any{"roles": []string{"manage-account", "view-profile"}}},
			"scope":           "email profile", "email_verified": false, "clientHost": "10.0.0.7", "clientAddress": "10.0.0.7",
		},
	}
}

// Auth0 is an access token of client credentials for an API whose identifier is the audience. It lives a day by default.
func Auth0(audience, client string) Form {
	return Form{
		Header: map[string]any{"typ": "JWT"}, Lifetime: 24 * time.Hour, Early: -1,
		Claims: map[string]any{"sub": client + "@clients", "aud": audience, "azp": client, "gty": "client-credentials", "scope": "models:use"},
	}
}

// Entra is an access token (version 2) of client credentials for an application whose id is the audience.
func Entra(audience, client string) Form {
	const object = "c7a0d7a3-58b0-4c1e-9f0e-0f2d8a2f6d11"
	return Form{
		Header: map[string]any{"typ": "JWT", "x5t": "nOo3ZDrODXEK1jKWhXslHR_KXEg"}, Lifetime: 65 * time.Minute,
		Claims: map[string]any{
			"aud": audience, "azp": client, "azpacr": "1", "idtyp": "app", "oid": object, "sub": object, "roles": []string{"Models.Use"},
			"tid": "9188040d-6c67-4c5b-b112-36a304b66dad", "uti": randomID(), "ver": "2.0", "aio": "k2RgYPj" + randomID(), "rh": "1.AXQA.",
		},
	}
}
