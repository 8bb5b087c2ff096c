package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/config"
	"iap/internal/modelapi"
	"iap/internal/relaykey"
	"iap/tunnel"
)

// agentName is the form of a name that a relay gives to an agent.
var agentName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

// JoinOptions is how an agent enrols.
type JoinOptions struct {
	Token     string            // as `iap-relay admin agents token` printed it
	Config    string            // agent.yaml to write; must not exist
	CAFile    string            // certificates to trust for the relay's TLS; empty: the system's
	Upstreams map[string]string // resource name → upstream; missing ones are left for the user to fill in
	Now       func() time.Time  // nil: time.Now
}

// Joined is what came of it.
type Joined struct {
	AgentID string
	Relay   string
	Config  string
	Missing []string // resources whose upstream the user has to fill in
}

// Join makes the agent's key, enrols it and writes its configuration. The key
// is written before the token is spent, so that a failure in between loses
// nothing but the token.
func Join(ctx context.Context, o JoinOptions) (Joined, error) {
	var none Joined
	token, err := auth.ParseJoinToken(o.Token)
	if err != nil {
		return none, err
	}
	now := time.Now
	if o.Now != nil {
		now = o.Now
	}
	if now().After(token.Expires) {
		return none, fmt.Errorf("this join token expired at %s; make a new one on the relay: iap-relay admin agents token", token.Expires.Local().Format(time.DateTime))
	}
	if _, err := os.Stat(o.Config); !errors.Is(err, fs.ErrNotExist) {
		return none, fmt.Errorf("%s exists already; remove it first, or name another file with --config", o.Config)
	}
	if err := checkUpstreams(token, o.Upstreams); err != nil {
		return none, err
	}
	keyFile := filepath.Join(filepath.Dir(o.Config), "agent.key")
	key, err := newKeyFile(keyFile)
	if err != nil {
		return none, err
	}
	reply, err := enrol(ctx, token, key, o.CAFile)
	if err != nil {
		_ = os.Remove(keyFile) // made a moment ago and known to nobody
		return none, err
	}
	text, missing, err := configText(token, reply, o)
	if err != nil {
		return none, err
	}
	if err := config.WriteNew(o.Config, text, 0o600); err != nil {
		return none, fmt.Errorf("write configuration: %w", err)
	}
	return Joined{AgentID: reply.AgentID, Relay: token.Relay, Config: o.Config, Missing: missing}, nil
}

func checkUpstreams(token auth.JoinToken, upstreams map[string]string) error {
	known := map[string]bool{}
	var names []string
	for _, r := range token.Resources {
		known[r.Name] = true
		names = append(names, r.Name)
	}
	for name, upstream := range upstreams {
		if !known[name] {
			return fmt.Errorf("the join token does not name %q; it names %s", name, strings.Join(names, ", "))
		}
		i := slices.Index(names, name)
		if err := (&ResourceConfig{Name: name, Kind: token.Resources[i].Kind, Upstream: upstream}).validate(""); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// sameResources compares what the relay says the agent may serve with the join
// token, which came from its operator.
func sameResources(token []auth.JoinResource, reply []admin.JoinResource) bool {
	return slices.EqualFunc(token, reply, func(a auth.JoinResource, b admin.JoinResource) bool {
		return a.Name == b.Name && a.Kind == b.Kind
	})
}

func newKeyFile(path string) (ed25519.PrivateKey, error) {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s exists already: another agent's key is never overwritten; remove it or use another folder", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	key, err := auth.NewKey()
	if err != nil {
		return nil, err
	}
	return key, auth.SaveKey(path, key)
}

// enrol spends the token. The relay proves that it is the one the token came
// from: the token holds the hash of its key.
func enrol(ctx context.Context, token auth.JoinToken, key ed25519.PrivateKey, caFile string) (admin.JoinReply, error) {
	var none admin.JoinReply
	tlsConfig, err := tlsConfig(caFile)
	if err != nil {
		return none, err
	}
	transport := &http.Transport{TLSClientConfig: tlsConfig, Proxy: http.ProxyFromEnvironment, OnProxyConnectResponse: tunnel.ProxyAnswer}
	defer transport.CloseIdleConnections()
	public := key.Public().(ed25519.PublicKey)
	nonce := make([]byte, 32)
	_, _ = rand.Read(nonce) // never fails
	reply, err := admin.Join(ctx, &http.Client{Transport: transport}, token.Relay, admin.JoinRequest{
		TokenID: token.ID, Secret: token.Secret, PublicKey: public, Nonce: nonce,
		Signature: ed25519.Sign(key, auth.JoinRequestBytes(token.Relay, token.ID, "", public, nonce)),
	})
	if err != nil {
		return none, err
	}
	relayKey := ed25519.PublicKey(reply.RelayKey)
	pin, err := relaykey.FollowHash(token.RelayKeyHash, relayKey, reply.RelayChain) // the key may have changed since the token was made
	if err != nil || len(relayKey) != ed25519.PublicKeySize || !bytes.Equal(pin.Key, relayKey) ||
		!ed25519.Verify(relayKey, auth.JoinReplyBytes(token.Relay, token.ID, reply.AgentID, public, relayKey, nonce), reply.Signature) {
		return none, errors.New("the relay could not prove that it made this join token: something is in between, or the relay was set up anew")
	}
	if !sameResources(token.Resources, reply.Resources) || !agentName.MatchString(reply.AgentID) {
		return none, errors.New("the relay's answer names other resources than the join token: nothing was written; ask its operator")
	}
	return reply, nil
}

// configText is agent.yaml, commented.
func configText(token auth.JoinToken, reply admin.JoinReply, o JoinOptions) (text []byte, missing []string, err error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Written by iap-agent join. `iap-agent check` reads it and tells what is wrong.\n\n")
	fmt.Fprintf(&b, "relay: %s\nagent_id: %s\n", token.Relay, reply.AgentID)
	fmt.Fprintf(&b, "relay_key: %s # pinned: a relay with another key is refused\n", base64.StdEncoding.EncodeToString(reply.RelayKey))
	fmt.Fprintf(&b, "key_file: agent.key\n")
	if o.CAFile != "" {
		ca, err := filepath.Abs(o.CAFile)
		if err != nil {
			return nil, nil, err
		}
		fmt.Fprintf(&b, "ca_file: %q\n", ca)
	}
	b.WriteString("\n# The agent's own list: it dials nothing else, whatever the relay says.\nresources:\n")
	for _, r := range token.Resources {
		upstream := o.Upstreams[r.Name]
		note := ""
		if upstream == "" {
			missing = append(missing, r.Name)
			upstream, note = defaultUpstream(r.Kind), " # CHECK: where it listens"
		}
		fmt.Fprintf(&b, "  - name: %s\n    kind: %s\n    upstream: %q%s\n", r.Name, r.Kind, upstream, note)
		if r.Kind == modelapi.KindModel {
			b.WriteString("    # server: ollama          # or llama.cpp, vllm, sglang, tgi, llama-swap, openai; found out by asking if left out\n")
			b.WriteString("    # capacity: 4             # generations at once, the rest wait in a fair queue; no bound if left out\n")
			b.WriteString("    # aliases: {default: \"phi3:mini\"}  # other names for models\n")
			b.WriteString("    # models: [\"phi3:*\"]      # the only models to serve; all if left out\n")
			b.WriteString("    # actions: [chat, embed, list-models]  # the only actions; all that are granted if left out\n")
			b.WriteString("    # api_key_file: upstream.key  # sent to the model server as a bearer token; or api_key_env: NAME\n")
		}
	}
	return b.Bytes(), missing, nil
}

func defaultUpstream(kind string) string {
	switch kind {
	case modelapi.KindModel:
		return "http://127.0.0.1:11434"
	case modelapi.KindHTTP:
		return "http://127.0.0.1:8080"
	default:
		return "127.0.0.1:5432"
	}
}
