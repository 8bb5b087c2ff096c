package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"iap/internal/config"
	"iap/internal/relay/settings"
	"iap/internal/servercmd"
)

func initCommand() *cobra.Command {
	var s settings.Setup
	c := &cobra.Command{
		Use: "init --name NAME --issuer URL --client-id ID", Short: "Write a first relay.yaml and grants.yaml", Args: servercmd.NoArgs,
		Long: `Write a commented relay.yaml and grants.yaml and print the next commands.
Existing files are never overwritten.`,
		Example: `  iap-relay init --name iap.example.com --client-id iap \
      --issuer https://keycloak.example.com/realms/corp`,
		RunE: func(c *cobra.Command, _ []string) error {
			if s.Name == "" || s.Issuer == "" || s.ClientID == "" {
				return servercmd.Usage(errors.New("--name, --issuer and --client-id are all needed; see iap-relay init --help"))
			}
			file, err := s.Write()
			if err != nil {
				return err
			}
			printNext(c, s, file)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&s.Name, "name", "", "public DNS name of the relay, with a port unless it is 443")
	f.StringVar(&s.Issuer, "issuer", "", "URL of the identity provider")
	f.StringVar(&s.ClientID, "client-id", "", "public client that iapctl logs in as")
	f.StringVar(&s.Alias, "alias", "corp", "what grants call the provider")
	f.StringVar(&s.Dir, "dir", "/etc/iap", "folder to write to")
	f.StringVar(&s.Data, "data", "/var/lib/iap-relay", "folder of keys, database and audit log")
	f.StringVar(&s.CertFile, "cert", "tls.crt", "TLS certificate, PEM, relative to --dir")
	f.StringVar(&s.KeyFile, "key", "tls.key", "its key")
	f.StringVar(&s.Listen, "listen", "", "address to listen on (default the port of the name)")
	f.StringVar(&s.Group, "group", "", "group that may use the first resource (default everybody)")
	f.StringVar(&s.Resource, "resource", "phi3", "name of the first resource")
	return c
}

func printNext(c *cobra.Command, s settings.Setup, file string) {
	w := c.OutOrStdout()
	fmt.Fprintf(w, "Wrote %s and %s.\n\n", file, filepath.Join(s.Dir, "grants.yaml"))
	fmt.Fprintf(w, "Put the certificate at %s and %s, then start the relay:\n", config.Resolve(file, s.CertFile), config.Resolve(file, s.KeyFile))
	fmt.Fprintf(w, "  iap-relay check --config %s && iap-relay run --config %s\n\n", file, file)
	fmt.Fprintln(w, "Next, in this order:")
	fmt.Fprintf(w, "  1. here:            iap-relay admin agents token --config %s \\\n                        --name gpu-1 --resource %s=model\n", file, s.Resource)
	fmt.Fprintf(w, "  2. on the GPU box:  iap-agent join TOKEN --upstream %s=http://127.0.0.1:11434 && iap-agent run\n", s.Resource)
	fmt.Fprintf(w, "  3. on a laptop:     iapctl login %s && iapctl connect %s\n", s.Name, s.Resource)
}
