package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/agent"
	"iap/internal/dev"
	"iap/internal/relay"
	"iap/internal/relay/settings"
	"iap/internal/servercmd"
	"iap/internal/serverlog"
)

const (
	devStartLimit = 30 * time.Second
	devResource   = "demo"
	devSessions   = 2 // an interactive and a bulk one
	devAlias      = "dev"
)

// devOptions are the flags of `iap-relay dev`.
type devOptions struct {
	listen, issuerListen, modelListen string
	modelURL, dir, format             string
	rate                              float64
	demo, verbose                     bool
}

func devCommand() *cobra.Command {
	var o devOptions
	c := &cobra.Command{
		Use: "dev", Short: "Run the whole system on loopback, for trying and testing", Args: servercmd.NoArgs,
		Long: `Run identity provider, relay, agent and a small demo model in one process, on
loopback only, with the real protocols between them. For development: its
provider lets anybody in.`,
		Example: "  iap-relay dev --demo\n  iap-relay dev --model-url http://127.0.0.1:11434",
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := serverlog.New(os.Stderr, o.format, o.verbose)
			if err != nil {
				return servercmd.Usage(err)
			}
			if o.demo && !o.verbose {
				log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
			}
			stop, force, release := stopSignals(c.Context())
			defer release()
			return runDev(stop, force, o, log)
		},
	}
	f := c.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:8443", "address of the relay")
	f.StringVar(&o.issuerListen, "issuer-listen", "127.0.0.1:9556", "address of the identity provider")
	f.StringVar(&o.modelListen, "model-listen", "127.0.0.1:0", "address of the demo model")
	f.StringVar(&o.modelURL, "model-url", "", "a model server of your own (Ollama, llama.cpp) instead of the demo model")
	f.StringVar(&o.dir, "dir", "", "folder for keys, state and configuration (default a new temporary one)")
	f.Float64Var(&o.rate, "tokens-per-second", 30, "pace of the demo model")
	f.BoolVar(&o.demo, "demo", false, "log in, connect and stream one answer, approving the login by itself")
	logFlags(c, &o.format, &o.verbose)
	return c
}

// devSystem is everything that `dev` runs, in the order it was started.
type devSystem struct {
	options  devOptions
	log      *slog.Logger
	dir      string
	name     string // of the relay, with its port
	model    string // to ask for by hand
	ca       string
	provider *dev.Provider
	relay    *relay.Relay
	agent    *agent.Agent
	closers  []func()
}

func runDev(ctx context.Context, force <-chan struct{}, o devOptions, log *slog.Logger) error {
	s := &devSystem{options: o, log: log, model: "demo"}
	if o.modelURL != "" {
		s.model = "MODEL" // the demo finds out
	}
	defer s.close()
	starting, cancel := context.WithTimeout(ctx, devStartLimit)
	defer cancel()
	if err := s.prepare(starting); err != nil {
		return err
	}
	var group sync.WaitGroup
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	failed := make(chan error, 2)
	run := func(f func() error) {
		group.Go(func() {
			if err := f(); err != nil {
				failed <- err
			}
			stop()
		})
	}
	relayStop, stopRelay := context.WithCancel(running)
	run(func() error { return s.relay.Run(relayStop, force) })
	err := s.enrol(starting)
	if err == nil {
		run(func() error { return s.agent.Run(running) })
		err = s.agent.Connected(starting, devSessions)
	}
	if err == nil {
		err = s.present(running, ctx)
	}
	stopRelay() // users first: their answers need the agent
	select {
	case <-running.Done():
	case <-force:
	}
	stop()
	group.Wait()
	if ctx.Err() != nil {
		err = nil // Ctrl-C in the middle of something is no failure of it
	}
	select {
	case runErr := <-failed:
		err = errors.Join(err, runErr)
	default:
	}
	return err
}

// prepare starts the provider and the model and builds the relay.
func (s *devSystem) prepare(ctx context.Context) (err error) {
	if err := loopbackOnly(s.options.listen, s.options.modelListen); err != nil {
		return err
	}
	if err := s.folder(); err != nil {
		return err
	}
	if s.provider, err = s.startProvider(ctx); err != nil {
		return err
	}
	s.closers = append(s.closers, func() { _ = s.provider.Close() })
	if s.options.modelURL == "" {
		if err := s.startModel(); err != nil {
			return err
		}
	}
	listen, err := freeAddress(s.options.listen, s.log)
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	s.name = "localhost:" + port
	files, err := dev.Certificates(s.dir, "localhost", "127.0.0.1", "::1")
	if err != nil {
		return err
	}
	s.ca = files.CA
	file, err := s.writeConfig(listen, files)
	if err != nil {
		return err
	}
	cfg, err := settings.Load(file)
	if err != nil {
		return err
	}
	s.relay, err = relay.New(ctx, cfg, relay.Options{Logger: s.log})
	return err
}

func (s *devSystem) folder() (err error) {
	if s.options.dir != "" {
		s.dir = s.options.dir
		return os.MkdirAll(s.dir, 0o700)
	}
	s.dir, err = os.MkdirTemp("", "iap-dev-")
	s.closers = append(s.closers, func() { _ = os.RemoveAll(s.dir) })
	return err
}

func (s *devSystem) startProvider(ctx context.Context) (*dev.Provider, error) {
	listen, err := freeAddress(s.options.issuerListen, s.log)
	if err != nil {
		return nil, err
	}
	return dev.StartProvider(context.WithoutCancel(ctx), dev.ProviderOptions{Listen: listen, Interval: time.Second, Logger: s.log})
}

func (s *devSystem) startModel() error {
	l, err := net.Listen("tcp", s.options.modelListen)
	if err != nil {
		return fmt.Errorf("listen for the demo model: %w", err)
	}
	server := &http.Server{Handler: dev.Model(dev.ModelOptions{TokensPerSecond: s.options.rate}), ReadHeaderTimeout: devStartLimit}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // ends with Close
	}()
	s.closers = append(s.closers, func() { _ = server.Close(); <-done })
	s.options.modelURL = "http://" + l.Addr().String()
	return nil
}

const devGrants = `# Grants of the development system.
version: 1

grants:
  - name: engineers
    to: ["group:dev/ml-eng"]
    resources: [demo]
    actions: [chat, complete, embed, tokenize, list-models, inspect-model, health]

admins: ["user:dev/alice"]
`

func (s *devSystem) writeConfig(listen string, files dev.CertFiles) (string, error) {
	for _, old := range []string{"relay.yaml", "grants.yaml"} { // of an earlier run in the same folder
		if err := os.Remove(filepath.Join(s.dir, old)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	return settings.Setup{
		Dir: s.dir, Name: s.name, Listen: listen, Issuer: s.provider.Issuer(), Alias: devAlias, ClientID: s.provider.ClientID(),
		CertFile: files.Cert, KeyFile: files.Key, Data: filepath.Join(s.dir, "relay"), Grants: devGrants,
	}.Write()
}

// enrol gives the agent its place at the relay the way an operator does: a join
// token over the admin socket, then `iap-agent join`.
func (s *devSystem) enrol(ctx context.Context) error {
	file := filepath.Join(s.dir, "agent", "agent.yaml")
	if _, err := os.Stat(file); err == nil { // of an earlier run in the same folder
		return s.loadAgent(file)
	}
	client := admin.NewClient(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", s.relay.AdminSocket())
	})
	defer client.Close()
	created, err := client.CreateJoinToken(ctx, admin.NewJoinToken{
		Name: "dev-agent", Resources: []admin.JoinResource{{Name: devResource, Kind: "model", Labels: map[string]string{"env": "dev"}}},
	})
	if err != nil {
		return fmt.Errorf("make join token: %w", err)
	}
	_, err = agent.Join(ctx, agent.JoinOptions{
		Token: created.Token, Config: file, CAFile: s.ca, Upstreams: map[string]string{devResource: s.options.modelURL},
	})
	if err != nil {
		return fmt.Errorf("enrol agent: %w", err)
	}
	return s.loadAgent(file)
}

func (s *devSystem) loadAgent(file string) error {
	cfg, err := agent.LoadConfig(file)
	if err != nil {
		return err
	}
	cfg.Relay = s.name // the port may be another in each run
	for i := range cfg.Resources {
		cfg.Resources[i].SetUpstream(s.options.modelURL) // the demo model's port is another in each run
	}
	s.agent, err = agent.New(cfg, s.log)
	return err
}

func (s *devSystem) close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
}

// loopbackOnly refuses listeners that others could reach: the provider lets
// anybody in.
func loopbackOnly(addresses ...string) error {
	for _, a := range addresses {
		host, _, err := net.SplitHostPort(a)
		if err != nil {
			return servercmd.Usage(fmt.Errorf("%q is no address: write 127.0.0.1:8443", a))
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return servercmd.Usage(fmt.Errorf("%q is not loopback: the development system lets anybody in", a))
		}
	}
	return nil
}

// freeAddress returns the address, or one with another port if it is taken.
func freeAddress(address string, log *slog.Logger) (string, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		host, _, splitErr := net.SplitHostPort(address)
		if splitErr != nil {
			return "", err
		}
		log.Warn("port is taken, using another", "address", address)
		if l, err = net.Listen("tcp", net.JoinHostPort(host, "0")); err != nil {
			return "", err
		}
	}
	defer l.Close()
	return strings.Replace(l.Addr().String(), "localhost", "127.0.0.1", 1), nil
}
