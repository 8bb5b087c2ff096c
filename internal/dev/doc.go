// Package dev is a whole neighbourhood for development on one machine: an OpenID provider, a small language model and
// certificates, all of them real in protocol and bound to loopback.
//
// It exists so that the demo and the tests meet the protocols they meet in production, device login, key rotation,
// streamed answers, TLS, without an account anywhere and without a network.
//
// # The provider
//
// StartProvider serves discovery, keys, the device authorization grant (RFC 8628), the authorization code grant with PKCE
// (RFC 7636) and RFC 9207's iss parameter, refresh with rotation, and revocation (RFC 7009). Nobody has a password unless a test gives them one: whoever reaches
// the page chooses who to be. That is why it refuses to listen anywhere but on loopback, answers only requests whose
// Host is its own, and says on each page that it is for development.
//
// ID tokens carry groups, email, email_verified, name, amr, auth_time, nonce (code flow) and sid. Access tokens are JWTs of type
// at+jwt (RFC 9068). A refresh token is good once; a second use ends its whole grant.
//
// Tests steer it: Approve, Deny and SignIn act on its pages over HTTP as a person would; Mint signs any claims with the live or a foreign key; RotateKeys
// and ForgetOldKeys change the key set; SetUser and DisableUser change people; Script makes an endpoint misbehave; Hits, HitTimes and AwaitHits
// observe. MintForm makes the tokens that platforms give to programs (GitHubActions, Kubernetes, Keycloak, Auth0, Entra).
//
// # The model
//
// Model answers with sentences of a word-level n-gram model with back-off, learnt at the first request from a text that is compiled in. Its
// tokens are words and punctuation marks (Tokens), so usage numbers can be checked by hand. It speaks
// OpenAI's protocols (chat, completions, responses, embeddings), Anthropic's messages and Ollama's own, plain and streamed,
// each with its usage numbers, and stops as soon as its client leaves. ignore_eos, as vLLM and llama.cpp have it, makes an answer run to its token limit.
//
// # The certificates
//
// Certificates makes a small authority that is constrained to loopback and .test names, and a server certificate under it.
package dev
