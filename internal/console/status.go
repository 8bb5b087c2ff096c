package console

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/plaintext"
	"iap/internal/screen"
)

// Relay are the commands about the relay itself.
func (c *Console) Relay() *cobra.Command {
	return c.host.Group("relay COMMAND", "Tell how the relay is, and give it a new key", `See how the relay is as its operator does, and have it take a new key.`, c.Status(), c.relayRotate())
}

// Status tells how the relay is.
func (c *Console) Status() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Tell how the relay is", Args: c.args(0, 0),
		Long: `Tell which relay answers, since when it is up, by which policy it decides,
whether its audit log can be written, and how much is connected.`,
		Example: c.examples("relay status", "relay status -o json"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
				st, err := client.AdminStatus(ctx)
				if err != nil {
					return err
				}
				return c.show(cmd.OutOrStdout(), statusDocument{Schema, st}, func(w io.Writer) { c.printStatus(w, st) })
			})
		},
	}
}

func (c *Console) printStatus(w io.Writer, st admin.Status) {
	s, users, streams := c.host.Styles(), 0, 0
	principals := map[string]bool{}
	for _, one := range st.Sessions {
		streams += one.Streams
		if one.Agent == "" {
			users++
			principals[one.Principal] = true
		}
	}
	audit := s.Good.Render(plaintext.Clean(st.Audit))
	if st.Audit != "ok" {
		audit = s.Bad.Render(plaintext.Clean(st.Audit))
	}
	screen.Pairs(
		w, s, 0,
		[2]string{"Relay", fmt.Sprintf("%s, version %s", plaintext.Clean(st.Relay), plaintext.Clean(st.Version))},
		[2]string{"Up", screen.Lasted(time.Since(st.Started)) + ", since " + st.Started.Local().Format(time.DateTime)},
		[2]string{"Binding", plaintext.Clean(st.ChannelBinding)}, [2]string{"Policy", plaintext.Clean(st.PolicyRevision)}, [2]string{"Audit", audit},
		[2]string{"Agents", screen.Count(st.Agents, "agent") + " online"},
		[2]string{"Sessions", fmt.Sprintf("%s of %s, and %s of agents", screen.Grouped(int64(users)), screen.Count(len(principals), "principal"), screen.Grouped(int64(len(st.Sessions)-users)))},
		[2]string{"Streams", screen.Grouped(int64(streams))},
	)
	c.printRelays(w, st)
}

// printRelays lists the relays that share a state, and warns where they differ in
// what each has of its own.
func (c *Console) printRelays(w io.Writer, st admin.Status) {
	if len(st.Relays) == 0 {
		return
	}
	fmt.Fprintln(w)
	policies, keys := map[string]bool{}, map[string]bool{}
	rows := make([][]string, len(st.Relays))
	for i, r := range st.Relays {
		policies[r.PolicyRevision], keys[r.RelayKey] = true, true
		rows[i] = []string{plaintext.Clean(r.Instance), fmt.Sprint(r.Sessions), fmt.Sprint(r.Streams), fmt.Sprint(r.Agents), plaintext.Clean(r.PolicyRevision)}
	}
	c.table(w, []string{"RELAY", "SESSIONS", "STREAMS", "AGENTS", "POLICY"}, rows)
	if len(policies) > 1 {
		fmt.Fprintf(w, "\n%s\n", c.host.Styles().Bad.Render("The relays have different policies: who may do what depends on which one answers."))
	}
	if len(keys) > 1 {
		fmt.Fprintf(w, "\n%s\n", c.host.Styles().Bad.Render("The relays have different keys: agents that know one refuse the other."))
	}
	printSilent(w, st.Silent, "They are busy, or have died.")
}

func (c *Console) relayRotate() *cobra.Command {
	var q admin.NewRelayKey
	var yes bool
	cmd := &cobra.Command{
		Use: "rotate", Short: "Have the relay announce its next key, and take it later", Args: c.args(0, 0),
		Long: `Have the relay make its next key, signed by the present one. Agents and iapctl
learn of it at once, or when they next come; it is in force after --overlap.
Nothing that runs notices.`,
		Example: c.examples("relay rotate", "relay rotate --overlap 72h --yes"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.sure(cmd.Context(), yes, "Make the relay's next key?"); err != nil {
				return err
			}
			return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
				r, err := client.RotateRelay(ctx, q)
				if err != nil {
					return err
				}
				return c.show(cmd.OutOrStdout(), relayRotationDocument{Schema, r}, func(w io.Writer) {
					fmt.Fprintf(w, "The next key, %s, is announced. It replaces %s at %s.\n", plaintext.Clean(r.Next), plaintext.Clean(r.Key), screen.Clock(r.From, time.Now()))
				})
			})
		},
	}
	cmd.Flags().StringVar(&q.Overlap, "overlap", "", "`time` between announcing and using it (default 24h)")
	yesFlag(cmd, &yes)
	return cmd
}
