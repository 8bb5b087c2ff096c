package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"iap/internal/relay"
	"iap/internal/relay/settings"
	"iap/internal/servercmd"
	"iap/internal/serverlog"
	"iap/internal/version"
)

const defaultConfig = "/etc/iap/relay.yaml"

func runCommand() *cobra.Command {
	var file, format string
	var verbose bool
	c := &cobra.Command{
		Use: "run", Short: "Run the relay until it is told to stop", Args: servercmd.NoArgs,
		Long: `Run the relay. SIGTERM and Ctrl-C drain: no new streams, running answers may
finish. A second signal ends them. SIGHUP reads certificate and policy again.`,
		Example: "  iap-relay run --config /etc/iap/relay.yaml",
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := serverlog.New(os.Stderr, format, verbose)
			if err != nil {
				return servercmd.Usage(err)
			}
			return serve(c.Context(), file, log)
		},
	}
	c.Flags().StringVarP(&file, "config", "c", defaultConfig, "configuration file")
	logFlags(c, &format, &verbose)
	return c
}

func logFlags(c *cobra.Command, format *string, verbose *bool) {
	c.Flags().StringVar(format, "log", "auto", serverlog.Usage)
	c.Flags().BoolVarP(verbose, "verbose", "v", false, "log more")
}

func serve(ctx context.Context, file string, log *slog.Logger) error {
	cfg, err := settings.Load(file)
	if err != nil {
		return err
	}
	r, err := relay.New(ctx, cfg, relay.Options{Logger: log})
	if err != nil {
		return err
	}
	stop, force, release := stopSignals(ctx)
	defer release()
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	finished := make(chan struct{})
	reloading := make(chan struct{})
	go func() {
		defer close(reloading)
		for {
			select {
			case <-reload:
				_ = r.Reload(ctx) // it logs what is wrong, and the old stays
			case <-finished:
				return
			}
		}
	}()
	err = r.Run(stop, force)
	close(finished)
	<-reloading
	return err
}

// stopSignals returns a context that the first signal to stop ends, and a
// channel that the second closes.
func stopSignals(ctx context.Context) (stop context.Context, force <-chan struct{}, release func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	stop, cancel := context.WithCancel(ctx)
	forced, done, left := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(left)
		for _, act := range []func(){cancel, func() { close(forced) }} {
			select {
			case <-signals:
				act()
			case <-done:
				return
			}
		}
	}()
	return stop, forced, func() {
		signal.Stop(signals)
		close(done)
		<-left
		cancel()
	}
}

func versionCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "version", Short: "Print the version", Args: servercmd.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			v := version.Current()
			return printOr(c.OutOrStdout(), output, v, func(w io.Writer) {
				fmt.Fprintf(w, "iap-relay %s (%s, %s)\n", v.Version, v.Go, v.Platform)
			})
		},
	}
	outputFlag(c, &output)
	return c
}

func outputFlag(c *cobra.Command, output *string) {
	c.Flags().StringVarP(output, "output", "o", "text", "text or json")
}

// printOr prints v as JSON or lets text print it for people.
func printOr(w io.Writer, output string, v any, text func(io.Writer)) error {
	switch output {
	case "text":
		text(w)
		return nil
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	return checkOutput(output)
}

func checkOutput(output string) error {
	if output == "text" || output == "json" {
		return nil
	}
	return servercmd.Usage(fmt.Errorf("--output: %q is neither text nor json", output))
}
