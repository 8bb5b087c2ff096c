package main

import (
	"context"
	"net"
	"path/filepath"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/diag"
	"iap/internal/relay/settings"
	"iap/internal/servercmd"
)

func diagCommand() *cobra.Command {
	return servercmd.Diag(servercmd.Report{
		Program: "iap-relay", Config: defaultConfig, Fill: fillReport,
		Long: `Write what helps to find a fault into a zip: version, operating system,
relay.yaml without its comments, what iap-relay check finds, how a running relay
is, its live sessions, and which files the data folder has. Keys and passwords
are left out, and taken out of whatever else goes in; so are grants and the
audit log. What is in it is listed: look at it before you send it. Names are in
it: those of providers, of machines, and of who is connected.`,
	})
}

func fillReport(ctx context.Context, b *diag.Bundle, file string) {
	cfg, err := settings.Load(file)
	if err == nil {
		b.Redact.Know(cfg.Secrets()...)
		for _, path := range cfg.SecretFiles() {
			b.Redact.KnowFile(path)
		}
	}
	b.AddConfig("relay.yaml", "the configuration, without comments", file)
	checking, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	b.AddJSON("check.json", "what iap-relay check finds", settings.Check(checking, file))
	if err != nil {
		return // where the rest is, nobody knows
	}
	b.AddFolder("data.txt", "which files the data folder has, not what is in them", cfg.Data)
	b.AddFolder("audit.txt", "which files the audit log has", cfg.Audit.Dir)
	if filepath.Dir(file) != cfg.Data {
		b.AddFolder("config.txt", "which files lie beside relay.yaml", filepath.Dir(file))
	}
	addRunning(ctx, b, cfg.AdminSocket)
}

// addRunning asks the relay that runs, if one does.
func addRunning(ctx context.Context, b *diag.Bundle, socket string) {
	const name, what = "status.json", "how the running relay is"
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	client := admin.NewClient(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	})
	defer client.Close()
	status, err := client.AdminStatus(ctx)
	if err != nil {
		b.Add(name, what, []byte(err.Error()+"\n"))
		return
	}
	b.AddJSON(name, what, status)
}
