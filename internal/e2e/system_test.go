package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"iap/internal/admin"
	"iap/internal/dev"
)

// grants of a system that asks for no others: one group may use every resource.
const usualGrants = `version: 1
grants:
  - name: engineers
    to: ["group:dev/ml-eng"]
    resources: ["*"]
    actions: [chat, complete, embed, tokenize, list-models, inspect-model, health, connect]
admins: ["user:dev/alice"]
`

// options are what a test wants of its system. The zero value is the usual one.
type options struct {
	host     string // of the relay's name; default 127.0.0.1
	grants   string // default usualGrants
	provider dev.ProviderOptions
	// config changes relay.yaml as `iap-relay init` wrote it.
	config func(string) string
}

// system is a relay with its identity provider. Agents and users come to it one by one.
type system struct {
	t        *testing.T
	dir      string
	name     string // of the relay, as dialled
	listen   string
	ca       string
	config   string // relay.yaml
	grants   string // grants.yaml
	provider *dev.Provider
	relay    *process
	https    *http.Client // to the relay and the provider
}

func newSystem(t *testing.T, o options) *system {
	t.Helper()
	s := &system{t: t, dir: shortDir(t), listen: freeAddress(t)}
	if o.host == "" {
		o.host = "127.0.0.1"
	}
	_, port, _ := net.SplitHostPort(s.listen)
	s.name = net.JoinHostPort(o.host, port)
	s.startProvider(o.provider)
	files, err := dev.Certificates(filepath.Join(s.dir, "tls"), o.host, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	s.ca = files.CA
	s.https = s.client()
	s.configure(files, o)
	s.startRelay()
	return s
}

// shortDir is a folder whose path leaves room for a unix socket's name, which a test's own folder may not.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "iap-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the test's folder: %v", err)
		}
	})
	return dir
}

func (s *system) startProvider(o dev.ProviderOptions) {
	s.t.Helper()
	o.Interval = time.Second // the shortest that RFC 8628 has
	if o.Algorithm == "" {
		o.Algorithm = "ES256" // a key that is made at once
	}
	p, err := dev.StartProvider(context.WithoutCancel(s.t.Context()), o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.provider = p
	s.t.Cleanup(func() { _ = p.Close() })
}

// configure lets `iap-relay init` write the configuration, as an operator would.
func (s *system) configure(files dev.CertFiles, o options) {
	s.t.Helper()
	dir := filepath.Join(s.dir, "relay")
	if err := os.Mkdir(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	got := run(s.t, baseEnv(s.dir), "iap-relay", "init", "--name", s.name, "--listen", s.listen, "--issuer", s.provider.Issuer(),
		"--client-id", s.provider.ClientID(), "--alias", "dev", "--dir", dir, "--data", filepath.Join(dir, "data"),
		"--cert", files.Cert, "--key", files.Key)
	if got.code != 0 {
		s.t.Fatalf("iap-relay init: %d %s", got.code, got.errOut)
	}
	s.config, s.grants = filepath.Join(dir, "relay.yaml"), filepath.Join(dir, "grants.yaml")
	if o.grants == "" {
		o.grants = usualGrants
	}
	s.write(s.grants, o.grants)
	if o.config != nil {
		text, err := os.ReadFile(s.config)
		if err != nil {
			s.t.Fatal(err)
		}
		s.write(s.config, o.config(string(text)))
	}
}

// write replaces a file in one step, as editors do.
func (s *system) write(file, text string) {
	s.t.Helper()
	next := file + ".next"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(next, file); err != nil {
		s.t.Fatal(err)
	}
}

// startRelay starts the relay and waits until it is ready. A relay that was killed before finds what that one left.
func (s *system) startRelay() {
	s.t.Helper()
	s.relay = start(s.t, baseEnv(s.dir), "iap-relay", "run", "--config", s.config)
	s.relay.awaitText(0, "relay is up", 1)
	eventually(s.t, "the relay is ready", func() bool {
		answer, err := s.https.Get("https://" + s.listen + "/readyz")
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
}

// client is an HTTP client that trusts the system's authority and keeps no connection.
func (s *system) client() *http.Client {
	s.t.Helper()
	pem, err := os.ReadFile(s.ca)
	if err != nil {
		s.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, DisableKeepAlives: true,
	}}
}

// admin runs `iap-relay admin` and reads its JSON into v, which may be nil.
func (s *system) admin(v any, args ...string) {
	s.t.Helper()
	got := run(s.t, baseEnv(s.dir), "iap-relay", append([]string{"admin", "--config", s.config, "-o", "json"}, args...)...)
	if got.code != 0 {
		s.t.Fatalf("iap-relay admin %v: %d %s", args, got.code, got.errOut)
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal([]byte(got.out), v); err != nil {
		s.t.Fatalf("iap-relay admin %v printed %q: %v", args, got.out, err)
	}
}

// agents are the enrolled agents as the operator sees them.
func (s *system) agents() []admin.Agent {
	s.t.Helper()
	var list struct{ Agents []admin.Agent }
	s.admin(&list, "agents", "ls")
	return list.Agents
}

// joinToken makes a token for an agent with resources given as NAME=KIND. Its names may be shared with other agents.
func (s *system) joinToken(name string, resources ...string) string {
	s.t.Helper()
	args := []string{"agents", "token", "--name", name, "--share"}
	for _, r := range resources {
		args = append(args, "--resource", r)
	}
	var made admin.JoinTokenCreated
	s.admin(&made, args...)
	return made.Token
}

// agent is an enrolled agent and, while it runs, its process.
type agent struct {
	*process
	system *system
	config string
	env    []string
}

// startAgent enrols an agent for resources, given as NAME=KIND to upstream, and waits until it is connected.
func (s *system) startAgent(resources map[string]string, env ...string) *agent {
	s.t.Helper()
	a := s.enrol(resources, env...)
	a.start()
	return a
}

// enrol does what an operator does: a join token on the relay, iap-agent join beside the upstream.
func (s *system) enrol(resources map[string]string, env ...string) *agent {
	s.t.Helper()
	dir, err := os.MkdirTemp(s.dir, "agent-")
	if err != nil {
		s.t.Fatal(err)
	}
	a := &agent{system: s, config: filepath.Join(dir, "agent.yaml"), env: append(baseEnv(dir), env...)}
	var named []string
	args := []string{"--ca-file", s.ca, "--config", a.config}
	for resource, upstream := range resources {
		name, _, _ := strings.Cut(resource, "=")
		named = append(named, resource)
		args = append(args, "--upstream", name+"="+upstream)
	}
	got := run(s.t, a.env, "iap-agent", append([]string{"join", s.joinToken(filepath.Base(dir), named...)}, args...)...)
	if got.code != 0 {
		s.t.Fatalf("iap-agent join: %d %s", got.code, got.errOut)
	}
	return a
}

// start runs the agent and waits for both of its sessions.
func (a *agent) start() {
	a.system.t.Helper()
	a.process = start(a.system.t, a.env, "iap-agent", "run", "--config", a.config)
	a.awaitConnected(0)
}

// awaitConnected waits until the agent has told, after mark, that its two sessions are up, and the relay knows.
func (a *agent) awaitConnected(mark int) {
	a.system.t.Helper()
	a.awaitText(mark, `"msg":"connected to the relay"`, 2)
}

// Ports lie below those that the system gives to outgoing connections: a relay that was killed must find
// its port free when it comes back.
const (
	firstPort = 20000
	portCount = 10000
)

// freeAddress finds a loopback port that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 200 {
		address := fmt.Sprintf("127.0.0.1:%d", firstPort+rand.N(portCount))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}
