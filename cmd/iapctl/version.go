package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"iap/internal/version"
	"iap/tunnel"
)

const shownRevision = 12

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version", Args: noArgs,
		Example: "  iapctl version\n  iapctl version -o json",
		RunE: func(*cobra.Command, []string) error {
			info := version.Current()
			if done, err := a.json(versionDocument{Schema: schemaName, Info: info, Protocol: tunnel.Protocol}); done {
				return err
			}
			revision := ""
			if info.Revision != "" {
				revision = " (" + info.Revision[:min(shownRevision, len(info.Revision))] + ")"
			}
			fmt.Fprintf(a.out, "iapctl %s%s %s %s\n", info.Version, revision, info.Platform, tunnel.Protocol)
			return nil
		},
	}
}
