package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/agent"
	"iap/internal/doctor"
	"iap/internal/plaintext"
	"iap/internal/screen"
	"iap/internal/servercmd"
)

const (
	checkTimeout  = 40 * time.Second
	rotateTimeout = 30 * time.Second
)

// checkDocument is `check -o json`.
type checkDocument struct {
	Schema string         `json:"schema"` // iap-agent/v1
	OK     bool           `json:"ok"`     // no stage failed
	Stages []doctor.Stage `json:"stages"`
}

func checkCommand() *cobra.Command {
	var file, output string
	c := &cobra.Command{
		Use: "check", Short: "Check configuration, the way to the relay and upstreams", Args: servercmd.NoArgs,
		Long: `Walk the agent's whole way: configuration, name, proxy, TCP, TLS, upgrade,
clock, session, what the relay lets it announce, and each upstream. Each stage
says how long it took, what was found and what to do next. A running agent is
not disturbed. Exit status 1 if anything fails.`,
		Example: `  iap-agent check --config /etc/iap/agent.yaml
  iap-agent check -o json`,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return servercmd.Usage(fmt.Errorf("--output %q: it is json or nothing", output))
			}
			ctx, cancel := context.WithTimeout(c.Context(), checkTimeout)
			defer cancel()
			report := agent.Check(ctx, file)
			if err := printCheck(c.OutOrStdout(), report, output); err != nil {
				return err
			}
			if report.Failed() {
				return errors.New("not ready; see above")
			}
			return nil
		},
	}
	c.Flags().StringVarP(&file, "config", "c", defaultConfig, "configuration file")
	c.Flags().StringVarP(&output, "output", "o", "", "json: for programs")
	return c
}

func printCheck(w io.Writer, report doctor.Report, output string) error {
	if output == "json" {
		text, err := json.MarshalIndent(checkDocument{"iap-agent/v1", !report.Failed(), report.Stages}, "", "  ")
		if err == nil {
			_, err = w.Write(append(plaintext.JSON(text), '\n'))
		}
		return err
	}
	screen.Table(w, screen.Styles{}, doctor.Heading(), report.Rows(nil))
	return nil
}

// witnessDocument is `witness -o json`.
type witnessDocument struct {
	Schema string            `json:"schema"` // iap-agent/v1
	Logs   []agent.Witnessed `json:"logs"`
}

func witnessCommand() *cobra.Command {
	var file, output string
	c := &cobra.Command{
		Use: "witness", Short: "Print what the agent holds of the relay's audit log", Args: servercmd.NoArgs,
		Long: `Print the latest checkpoint of the relay's audit log that this agent was
shown, one for each relay. The relay signed it, and the agent keeps it only if
it extends the one before: so an auditor can tell whether records up to there
were changed or removed, whoever holds the relay.

  iap-agent witness > checkpoint
  iapctl audit verify DIR --checkpoint checkpoint

A checkpoint that was refused, because it does not extend the one held, is told
on standard error; with -o json both are printed.`,
		Example: "  iap-agent witness --config /etc/iap/agent.yaml\n  iap-agent witness -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return servercmd.Usage(fmt.Errorf("--output %q: it is json or nothing", output))
			}
			logs, err := agent.Witnessing(file)
			if err != nil {
				return err
			}
			return printWitness(c.OutOrStdout(), c.ErrOrStderr(), logs, output)
		},
	}
	c.Flags().StringVarP(&file, "config", "c", defaultConfig, "configuration file")
	c.Flags().StringVarP(&output, "output", "o", "", "json: for programs")
	return c
}

func printWitness(w, warn io.Writer, logs []agent.Witnessed, output string) error {
	if output == "json" {
		text, err := json.MarshalIndent(witnessDocument{"iap-agent/v1", append([]agent.Witnessed{}, logs...)}, "", "  ")
		if err == nil {
			_, err = w.Write(append(plaintext.JSON(text), '\n'))
		}
		return err
	}
	if len(logs) == 0 {
		return errors.New("no checkpoint is held yet: the relay shows one soon after the agent has connected")
	}
	for _, l := range logs {
		fmt.Fprintf(w, "%s\n", l.Checkpoint)
		if l.Refused != nil {
			fmt.Fprintf(warn, "REFUSED on %s: a checkpoint of %s that does not extend this one.\n", l.Refused.Time.Format(time.RFC3339), plaintext.Clean(l.Origin))
		}
	}
	return nil
}

func rotateCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "rotate", Short: "Put a new key in the place of the agent's key", Args: servercmd.NoArgs,
		Long: `Make a new key and have the relay take it in the place of the old one, which
opens sessions for two minutes more and then nothing. Whether the agent runs or
not: one that runs brings its sessions over, and what runs on them goes on.

The new key is on disk before the relay hears of it: whatever breaks off a
rotation, the agent still connects, and finishes it.`,
		Example: "  iap-agent rotate --config /etc/iap/agent.yaml",
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), rotateTimeout)
			defer cancel()
			key, err := agent.Rotate(ctx, file)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "The agent's key is %s now.\n", key)
			return nil
		},
	}
	c.Flags().StringVarP(&file, "config", "c", defaultConfig, "configuration file")
	return c
}
