package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"iap/auth"
)

// fetchCommand obtains tokens for programs: what IAP_TOKEN_COMMAND names.
func (a *app) fetchCommand() *cobra.Command {
	var audience string
	github := &cobra.Command{
		Use:   "github-actions",
		Short: "Print a token of the GitHub Actions job that this runs in",
		Long: `Ask the runner for a token and print it. The job needs

  permissions:
    id-token: write

The audience must be one that the relay accepts for this issuer. A token lives
five minutes; as IAP_TOKEN_COMMAND this command brings a new one in time.`,
		Example: "  iapctl auth fetch github-actions --audience https://iap.example.com",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if audience == "" {
				return missingFlag(cmd, "audience")
			}
			job := auth.GitHubJob{RequestURL: a.env("ACTIONS_ID_TOKEN_REQUEST_URL"), RequestToken: a.env("ACTIONS_ID_TOKEN_REQUEST_TOKEN")}
			return a.printFetched(job.Fetch(cmd.Context(), audience))
		},
	}
	github.Flags().StringVar(&audience, "audience", "", "whom the token is for (required)")

	var p auth.Program
	var secretFile string
	client := &cobra.Command{
		Use:   "client-credentials",
		Short: "Print a token of a program that is a client of a provider",
		Long: `Ask an OpenID provider for an access token with a client id and its secret
(OAuth client credentials) and print it. The secret comes from
IAP_CLIENT_SECRET or a file, never from the command line, where every process
of the machine could read it.`,
		Example: `  IAP_CLIENT_SECRET=… iapctl auth fetch client-credentials \
    --issuer https://id.example.com/realms/acme --client-id nightly`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case p.Issuer == "":
				return missingFlag(cmd, "issuer")
			case p.ClientID == "":
				return missingFlag(cmd, "client-id")
			}
			return a.fetchClient(cmd.Context(), p, secretFile)
		},
	}
	f := client.Flags()
	f.StringVar(&p.Issuer, "issuer", "", "the provider, as its tokens name it (required)")
	f.StringVar(&p.ClientID, "client-id", "", "the program's id there (required)")
	f.StringVar(&secretFile, "secret-file", "", "file with the secret; default IAP_CLIENT_SECRET")
	f.StringSliceVar(&p.Scopes, "scope", nil, "what to ask for (Entra: api://ID/.default)")
	f.StringVar(&p.Audience, "audience", "", "whom the token is for (Auth0)")
	return group("fetch KIND", "Print a token for a program", "Obtain a token for a program, for IAP_TOKEN_COMMAND.", github, client)
}

func missingFlag(cmd *cobra.Command, name string) error {
	return &failure{code: "usage", what: cmd.CommandPath() + " needs --" + name, next: cmd.CommandPath() + " --help"}
}

func (a *app) fetchClient(ctx context.Context, p auth.Program, secretFile string) error {
	p.ClientSecret = a.env("IAP_CLIENT_SECRET")
	if secretFile != "" {
		data, err := os.ReadFile(secretFile)
		if err != nil {
			return &failure{code: "token_unavailable", what: "the file of the secret could not be read", next: "check --secret-file", cause: err}
		}
		p.ClientSecret = strings.TrimSpace(string(data))
	}
	if p.ClientSecret == "" {
		return &failure{code: "token_unavailable", what: "there is no client secret", next: "set IAP_CLIENT_SECRET or --secret-file"}
	}
	return a.printFetched(p.Fetch(ctx))
}

func (a *app) printFetched(token string, err error) error {
	if err != nil {
		return err
	}
	if done, err := a.json(tokenDocument{Schema: schemaName, Token: token}); done {
		return err
	}
	fmt.Fprintln(a.out, token)
	return nil
}
