package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/agent"
	"iap/internal/servercmd"
	"iap/internal/serverlog"
	"iap/internal/version"
)

const (
	defaultConfig = "/etc/iap/agent.yaml"
	joinTimeout   = 30 * time.Second
	maxTokenInput = 64 << 10
)

func runCommand() *cobra.Command {
	var file, format string
	var verbose bool
	c := &cobra.Command{
		Use: "run", Short: "Keep the tunnel to the relay and serve the resources", Args: servercmd.NoArgs,
		Long: `Run the agent. It dials out, reconnects by itself and listens on no port.
SIGTERM and Ctrl-C let running answers finish for up to 30 seconds.`,
		Example: "  iap-agent run --config /etc/iap/agent.yaml",
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := serverlog.New(os.Stderr, format, verbose)
			if err != nil {
				return servercmd.Usage(err)
			}
			cfg, err := agent.LoadConfig(file)
			if err != nil {
				return err
			}
			a, err := agent.New(cfg, log)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return a.Run(ctx)
		},
	}
	c.Flags().StringVarP(&file, "config", "c", defaultConfig, "configuration file")
	c.Flags().StringVar(&format, "log", "auto", serverlog.Usage)
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "log more")
	return c
}

func joinCommand() *cobra.Command {
	var o agent.JoinOptions
	var upstreams []string
	var tokenFile string
	c := &cobra.Command{
		Use: "join TOKEN", Short: "Enrol this machine with a join token and write agent.yaml",
		Long: `Enrol with a single-use token from "iap-relay admin agents token". Makes the
agent's key, pins the relay's and writes agent.yaml beside it. Give - as TOKEN
to read it from standard input, or --token-file, which keeps it out of the
process list. A file that others may read is refused.`,
		Example: `  iap-agent join --token-file ./token
  echo "$TOKEN" | iap-agent join - --upstream phi3=http://127.0.0.1:11434`,
		Args: func(c *cobra.Command, args []string) error {
			if (len(args) == 1) == (tokenFile != "") || len(args) > 1 {
				return servercmd.Usage(errors.New("join takes one join token, as its argument or by --token-file; see iap-agent join --help"))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if tokenFile != "" {
				o.Token, err = readTokenFile(tokenFile)
			} else {
				o.Token, err = readToken(c.InOrStdin(), args[0])
			}
			if err != nil {
				return err
			}
			if o.Upstreams, err = parseUpstreams(upstreams); err != nil {
				return servercmd.Usage(err)
			}
			ctx, cancel := context.WithTimeout(c.Context(), joinTimeout)
			defer cancel()
			joined, err := agent.Join(ctx, o)
			var untrusted *tls.CertificateVerificationError
			if errors.As(err, &untrusted) {
				return fmt.Errorf("%w; if the relay has an authority of its own, name its file with --ca-file", err)
			}
			if err != nil {
				return err
			}
			printJoined(c.OutOrStdout(), joined)
			return nil
		},
	}
	c.Flags().StringVarP(&o.Config, "config", "c", defaultConfig, "configuration file to write; must not exist")
	c.Flags().StringVar(&tokenFile, "token-file", "", "file with the join token, which nobody else may read")
	c.Flags().StringVar(&o.CAFile, "ca-file", "", "certificates to trust for the relay, PEM (default the system's)")
	c.Flags().StringArrayVar(&upstreams, "upstream", nil, "where a resource listens, NAME=URL (may be repeated)")
	return c
}

func printJoined(w io.Writer, j agent.Joined) {
	fmt.Fprintf(w, "Enrolled at %s as %s. Wrote %s.\n", j.Relay, j.AgentID, j.Config)
	if len(j.Missing) > 0 {
		fmt.Fprintf(w, "Check the upstream of %s there: it is a guess.\n", strings.Join(j.Missing, ", "))
	}
	fmt.Fprintf(w, "Next:\n  iap-agent check --config %s\n  iap-agent run --config %s\n", j.Config, j.Config)
}

func readToken(stdin io.Reader, arg string) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	data, err := io.ReadAll(io.LimitReader(stdin, maxTokenInput))
	return strings.TrimSpace(string(data)), err
}

// readTokenFile reads a join token from a file that is its owner's alone.
func readTokenFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	if mode := info.Mode(); !mode.IsRegular() || mode.Perm()&0o077 != 0 {
		return "", fmt.Errorf("--token-file: %s has mode %s: others may read it; chmod 600 %s, and make a new token if it lay there for long", path, mode, path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxTokenInput))
	return strings.TrimSpace(string(data)), err
}

func parseUpstreams(list []string) (map[string]string, error) {
	all := map[string]string{}
	for _, text := range list {
		name, url, ok := strings.Cut(text, "=")
		if !ok || url == "" {
			return nil, fmt.Errorf("--upstream %q: write NAME=URL, such as phi3=http://127.0.0.1:11434", text)
		}
		all[name] = url
	}
	return all, nil
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: servercmd.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			v := version.Current()
			fmt.Fprintf(c.OutOrStdout(), "iap-agent %s (%s, %s)\n", v.Version, v.Go, v.Platform)
			return nil
		},
	}
}
