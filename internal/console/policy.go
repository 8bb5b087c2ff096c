package console

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/plaintext"
	"iap/internal/screen"
)

// PolicyShow tells which policy is in force.
func (c *Console) PolicyShow() *cobra.Command {
	var text bool
	cmd := &cobra.Command{
		Use: "show", Short: "Show the policy in force", Args: c.args(0, 0),
		Long: `Show which policy the relay decides by: its revision, since when, who or what
loaded it, and its files. --text adds what stands in them, as they were loaded.`,
		Example: c.examples("policy show", "policy show --text"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
				p, err := client.ShowPolicy(ctx)
				if err != nil {
					return err
				}
				return c.show(cmd.OutOrStdout(), policyDocument{Schema, p}, func(w io.Writer) { c.printPolicy(w, p, text) })
			})
		},
	}
	cmd.Flags().BoolVar(&text, "text", false, "the files' text too")
	return cmd
}

func (c *Console) printPolicy(w io.Writer, p admin.PolicyInForce, text bool) {
	s := c.host.Styles()
	var files []string
	for _, f := range p.Files {
		files = append(files, fmt.Sprintf("%s, sha256 %s…", plaintext.Clean(f.Name), short(f.SHA256)))
	}
	failed := ""
	if p.Failed != "" {
		failed = s.Bad.Render("the files as they are now are not in force: " + plaintext.Clean(p.Failed))
	}
	screen.Pairs(
		w, s, 0,
		[2]string{"Revision", plaintext.Clean(p.Revision)}, [2]string{"In force", fmt.Sprintf("since %s, by %s", screen.Clock(p.Loaded, time.Now()), plaintext.Clean(p.By))},
		[2]string{"Files", strings.Join(files, "\n")}, [2]string{"Failed", failed}, [2]string{"Warnings", plaintext.Lines(strings.Join(p.Warnings, "\n"))},
	)
	if !text {
		return
	}
	for _, f := range p.Files {
		fmt.Fprintf(w, "\n%s\n%s\n", s.Bold.Render("# "+plaintext.Clean(f.Name)), strings.TrimRight(fileText(f.Text), "\n"))
	}
}

// fileText is a file's text fit for a terminal, with its tabs.
func fileText(text string) string {
	return plaintext.Lines(strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\t", "    "))
}

// PolicyReload has the relay read its policy files again.
func (c *Console) PolicyReload() *cobra.Command {
	return &cobra.Command{
		Use: "reload", Short: "Have the relay read its policy files again", Args: c.args(0, 0),
		Long: `Have the relay read its policy files again. What is no longer allowed ends
within a second. Files that cannot be loaded change nothing: the policy before
stays.`,
		Example: c.examples("policy reload"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
				revision, err := client.ReloadPolicy(ctx)
				if err != nil {
					return err
				}
				return c.show(cmd.OutOrStdout(), reloadDocument{Schema, admin.PolicyReloaded{Revision: revision}}, func(w io.Writer) {
					fmt.Fprintf(w, "Policy %s is in force.\n", plaintext.Clean(revision))
				})
			})
		},
	}
}
