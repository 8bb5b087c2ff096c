package system

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"iap/internal/admin"
	"iap/internal/bench/load"
	"iap/internal/dev"
)

const (
	readyTimeout  = 30 * time.Second
	pollEvery     = 100 * time.Millisecond
	agentSessions = 2 // an interactive and a bulk one

	alias = "bench" // of the issuer, in grants
	user  = "alice"
)

// Hops in the order in which a request meets them.
const (
	Client = "client"
	Relay  = "relay"
	Agent  = "agent"
)

// Ways to the model server: the kinds of resources.
const (
	Model = "model"
	HTTP  = "http"
	TCP   = "tcp"
)

// Options says what to run.
type Options struct {
	Bin     string   // folder of iap-relay, iap-agent and iapctl
	Dir     string   // empty folder for configuration, keys and logs; its path must leave room for a socket's
	Model   []string // command of the model server; it must print "listening on ADDR" as fakeslm.Command does
	Streams int      // most streams at once
}

// System is a running tunnel.
type System struct {
	Direct string            // base URL of the model server itself
	Ways   map[string]string // base URL of the model server through the tunnel, by kind of resource
	Hops   []load.Hop
	// Version is what the relay's binary says of itself.
	Version string

	bin, dir string
	provider *dev.Provider
	running  []*process // in the order they were started
}

// Start starts everything and returns once each way leads to the model server.
// What Start began it ends if it fails.
func Start(ctx context.Context, o Options) (s *System, err error) {
	s = &System{bin: o.Bin, dir: o.Dir, Ways: map[string]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	told, err := s.command(ctx, "", s.path("iap-relay"), "version")
	if err != nil {
		return nil, err
	}
	s.Version = strings.TrimSpace(string(told))
	if _, err := s.start("model", o.Model, s.readListening); err != nil {
		return nil, err
	}
	if s.provider, err = dev.StartProvider(context.WithoutCancel(ctx), dev.ProviderOptions{Listen: "127.0.0.1:0", Interval: time.Second}); err != nil {
		return nil, err
	}
	name, err := s.startRelay(ctx, o.Streams)
	if err != nil {
		return nil, err
	}
	if err := s.startAgent(ctx); err != nil {
		return nil, err
	}
	return s, s.startClient(ctx, name)
}

// Close ends every process, users first, and waits for them.
func (s *System) Close() error {
	var errs []error
	for i := len(s.running) - 1; i >= 0; i-- {
		errs = append(errs, s.running[i].stop())
	}
	s.running = nil
	if s.provider != nil {
		errs = append(errs, s.provider.Close())
	}
	return errors.Join(errs...)
}

// Check reports a hop that has ended by itself.
func (s *System) Check() error {
	for _, p := range s.running {
		select {
		case <-p.ended:
			return p.failed(errors.New("ended by itself"))
		default:
		}
	}
	return nil
}

func (s *System) path(binary string) string { return filepath.Join(s.bin, binary) }

func (s *System) readListening(out io.Reader) error {
	line, err := bufio.NewReader(out).ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if !ok {
		return fmt.Errorf("it printed %q: %w", line, err)
	}
	s.Direct = "http://" + address
	return nil
}

const grants = `version: 1
grants:
  - name: everything
    to: ["any:` + alias + `"]
    resources: [` + Model + `, ` + HTTP + `, ` + TCP + `]
    actions: [chat, embed, list-models, connect]
`

// startRelay sets a relay up with `iap-relay init` and runs it.
func (s *System) startRelay(ctx context.Context, streams int) (name string, err error) {
	listen, err := freeAddress(ctx)
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", err
	}
	name = "localhost:" + port
	files, err := dev.Certificates(s.dir, "localhost", "127.0.0.1", "::1")
	if err != nil {
		return "", err
	}
	if _, err := s.command(ctx, "", s.path("iap-relay"), "init", "--dir", s.dir, "--data", filepath.Join(s.dir, "relay"),
		"--name", name, "--listen", listen, "--issuer", s.provider.Issuer(), "--client-id", s.provider.ClientID(), "--alias", alias,
		"--cert", files.Cert, "--key", files.Key); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "grants.yaml"), []byte(grants), 0o600); err != nil {
		return "", err
	}
	if err := appendTo(s.relayConfig(), fmt.Sprintf("\nsessions: {streams_per_principal: %d}\n", streams)); err != nil {
		return "", err
	}
	p, err := s.start(Relay, []string{s.path("iap-relay"), "run", "--config", s.relayConfig(), "--log", "text"}, nil)
	if err != nil {
		return "", err
	}
	s.Hops = append(s.Hops, load.Hop{Name: Relay, PID: p.cmd.Process.Pid})
	return name, s.waitFor(ctx, p, func(ctx context.Context, c *admin.Client) (bool, error) {
		_, err := c.Agents(ctx)
		return err == nil, err
	})
}

func (s *System) relayConfig() string { return filepath.Join(s.dir, "relay.yaml") }

// startAgent enrols an agent with all three kinds of resources and runs it.
func (s *System) startAgent(ctx context.Context) error {
	out, err := s.command(ctx, "", s.path("iap-relay"), "admin", "agents", "token", "--config", s.relayConfig(), "--name", "bench",
		"--resource", Model+"="+Model, "--resource", HTTP+"="+HTTP, "--resource", TCP+"="+TCP)
	if err != nil {
		return err
	}
	file := filepath.Join(s.dir, "agent", "agent.yaml")
	address := strings.TrimPrefix(s.Direct, "http://")
	if _, err := s.command(ctx, string(out), s.path("iap-agent"), "join", "-", "--config", file, "--ca-file", filepath.Join(s.dir, "ca.pem"),
		"--upstream", Model+"="+s.Direct, "--upstream", HTTP+"="+s.Direct, "--upstream", TCP+"="+address); err != nil {
		return err
	}
	// The http and tcp resources lead to the model server knowingly.
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	opaque := strings.NewReplacer("    kind: http\n", "    kind: http\n    opaque: true\n", "    kind: tcp\n", "    kind: tcp\n    opaque: true\n")
	if err := os.WriteFile(file, []byte(opaque.Replace(string(text))), 0o600); err != nil {
		return err
	}
	p, err := s.start(Agent, []string{s.path("iap-agent"), "run", "--config", file, "--log", "text"}, nil)
	if err != nil {
		return err
	}
	s.Hops = append(s.Hops, load.Hop{Name: Agent, PID: p.cmd.Process.Pid})
	return s.waitFor(ctx, p, func(ctx context.Context, c *admin.Client) (bool, error) {
		all, err := c.Agents(ctx)
		return err == nil && len(all) == 1 && all[0].Sessions >= agentSessions, err
	})
}

// waitFor asks the relay's admin socket until it says yes.
func (s *System) waitFor(ctx context.Context, p *process, ask func(context.Context, *admin.Client) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	client := admin.NewClient(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(s.dir, "relay", "admin.sock"))
	})
	defer client.Close()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		yes, err := ask(ctx, client)
		if yes {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.ended:
			return p.failed(errors.New("ended before it was ready"))
		case <-ctx.Done():
			return p.failed(errors.Join(errors.New("it is not ready in time"), err))
		}
	}
}

// startClient logs in and connects all three resources in one iapctl.
func (s *System) startClient(ctx context.Context, name string) error {
	ctl := s.path("iapctl")
	if err := s.login(ctx, []string{ctl, "login", name, "--ca-file", filepath.Join(s.dir, "ca.pem"), "--no-open", "-o", "json"}); err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	p, err := s.start(Client, []string{ctl, "connect", Model, HTTP, TCP, "-o", "json"}, s.readConnections)
	if err != nil {
		return err
	}
	s.Hops = append([]load.Hop{{Name: Client, PID: p.cmd.Process.Pid}}, s.Hops...)
	return nil
}

// readConnections reads where iapctl listens.
func (s *System) readConnections(out io.Reader) error {
	var doc struct {
		Connections []struct {
			Resource string `json:"resource"`
			Port     int    `json:"port"`
			Online   bool   `json:"online"`
		} `json:"connections"`
	}
	if err := json.NewDecoder(out).Decode(&doc); err != nil {
		return fmt.Errorf("read what connect printed: %w", err)
	}
	for _, c := range doc.Connections {
		if !c.Online {
			return fmt.Errorf("resource %s is offline", c.Resource)
		}
		s.Ways[c.Resource] = fmt.Sprintf("http://127.0.0.1:%d", c.Port)
	}
	for _, way := range []string{Model, HTTP, TCP} {
		if s.Ways[way] == "" {
			return fmt.Errorf("resource %s is not connected", way)
		}
	}
	return nil
}

// freeAddress is a loopback address that nobody listens on now.
func freeAddress(ctx context.Context) (string, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func appendTo(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
