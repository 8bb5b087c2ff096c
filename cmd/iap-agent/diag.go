package main

import (
	"context"
	"path/filepath"

	"github.com/spf13/cobra"

	"iap/internal/agent"
	"iap/internal/diag"
	"iap/internal/servercmd"
)

func diagCommand() *cobra.Command {
	return servercmd.Diag(servercmd.Report{
		Program: "iap-agent", Config: defaultConfig, Fill: fillReport,
		Long: `Write what helps to find a fault into a zip: version, operating system,
agent.yaml without its comments, what iap-agent check finds, what is held of the
relay's audit log, and which files lie beside agent.yaml. Keys and passwords are
left out, and taken out of whatever else goes in. What is in it is listed: look
at it before you send it. Names are in it: the relay's, those of models and of
machines. A running agent is not disturbed.`,
	})
}

func fillReport(ctx context.Context, b *diag.Bundle, file string) {
	b.Redact.KnowFile(filepath.Join(filepath.Dir(file), "agent.key")) // also of a configuration that cannot be read
	if cfg, err := agent.LoadConfig(file); err == nil {
		b.Redact.Know(cfg.Secrets()...)
		for _, path := range cfg.SecretFiles() {
			b.Redact.KnowFile(path)
		}
	}
	b.AddConfig("agent.yaml", "the configuration, without comments", file)
	b.AddFolder("files.txt", "which files lie beside it, not what is in them", filepath.Dir(file))
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	report := agent.Check(ctx, file)
	b.AddJSON("check.json", "what iap-agent check finds", checkDocument{"iap-agent/v1", !report.Failed(), report.Stages})
	if logs, err := agent.Witnessing(file); err == nil {
		b.AddJSON("witness.json", "what is held of the relay's audit log", witnessDocument{"iap-agent/v1", logs})
	}
}
