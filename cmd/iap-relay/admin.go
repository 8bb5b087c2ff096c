package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/plaintext"
	"iap/internal/relay"
	"iap/internal/servercmd"
)

const adminTimeout = 20 * time.Second

// adminOptions are what every admin command takes.
type adminOptions struct{ config, socket, output string }

// call runs f with a client of the relay's admin socket.
func (o *adminOptions) call(c *cobra.Command, f func(context.Context, *admin.Client) error) error {
	if err := checkOutput(o.output); err != nil { // before the deed
		return err
	}
	path := o.socket
	if path == "" {
		cfg, err := relay.LoadConfig(o.config)
		if err != nil {
			return fmt.Errorf("%w (or name the socket with --socket)", err)
		}
		path = cfg.AdminSocket
	}
	ctx, cancel := context.WithTimeout(c.Context(), adminTimeout)
	defer cancel()
	client := admin.NewClient(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	})
	defer client.Close()
	err := f(ctx, client)
	var refused *admin.Error
	if err != nil && !errors.As(err, &refused) {
		return fmt.Errorf("cannot reach the relay at %s: is it running, and are you root or its user? (%w)", path, err)
	}
	return err
}

func adminCommand() *cobra.Command {
	o := &adminOptions{}
	c := &cobra.Command{
		Use: "admin", Short: "Manage a running relay as root, without the identity provider",
		Long: `Manage the relay on this machine over its unix socket. Only root and the
relay's own user may; every call is in the audit log as local:root.`,
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.PersistentFlags().StringVarP(&o.config, "config", "c", defaultConfig, "configuration file of the relay")
	c.PersistentFlags().StringVar(&o.socket, "socket", "", "admin socket (default from the configuration)")
	c.PersistentFlags().StringVarP(&o.output, "output", "o", "text", "text or json")
	agents := &cobra.Command{Use: "agents", Short: "List, enrol and revoke agents"}
	agents.AddCommand(agentsLs(o), agentsToken(o), agentsRevoke(o))
	sessions := &cobra.Command{Use: "sessions", Short: "List and kill sessions"}
	sessions.AddCommand(sessionsLs(o), sessionsKill(o))
	principals := &cobra.Command{Use: "principals", Short: "Revoke and restore people and programs"}
	principals.AddCommand(
		principalAct(o, "revoke", "Refuse every key and token of a principal and end its sessions", func(client *admin.Client, ctx context.Context, id, reason string) error {
			_, err := client.RevokePrincipal(ctx, id, reason)
			return err
		}),
		principalAct(o, "restore", "Take a revocation back", (*admin.Client).RestorePrincipal),
	)
	policies := &cobra.Command{Use: "policy", Short: "Reload the policy"}
	policies.AddCommand(policyReload(o))
	keys := &cobra.Command{Use: "keys", Short: "List and revoke people's keys for programs"}
	keys.AddCommand(keysLs(o), keysRevoke(o))
	budgets := &cobra.Command{Use: "budgets", Short: "Show and reset what is used of limits"}
	budgets.AddCommand(budgetsShow(o), budgetsReset(o))
	c.AddCommand(agents, sessions, principals, keys, budgets, policies, adminStatus(o))
	return c
}

func agentsLs(o *adminOptions) *cobra.Command {
	return &cobra.Command{Use: "ls", Short: "List the enrolled agents", Args: servercmd.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		return o.call(c, func(ctx context.Context, client *admin.Client) error {
			all, err := client.Agents(ctx)
			if err != nil {
				return err
			}
			return printOr(c.OutOrStdout(), o.output, all, func(w io.Writer) {
				t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				fmt.Fprintln(t, "ID\tNAME\tSTATE\tRESOURCES")
				for _, a := range all {
					fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", a.ID, a.Name, agentState(a), resourceNames(a.Resources))
				}
				t.Flush()
			})
		})
	}}
}

func agentState(a admin.Agent) string {
	switch {
	case a.Revoked != nil:
		return "revoked"
	case a.Online:
		return fmt.Sprintf("online (%d sessions)", a.Sessions)
	default:
		return "offline"
	}
}

func resourceNames(list []admin.JoinResource) string {
	names := make([]string, len(list))
	for i, r := range list {
		names[i] = r.Name + "=" + r.Kind
	}
	return strings.Join(names, " ")
}

func agentsToken(o *adminOptions) *cobra.Command {
	var q admin.NewJoinToken
	var resources, labels []string
	c := &cobra.Command{
		Use: "token --name AGENT --resource NAME=KIND…", Short: "Make a single-use join token for a new agent", Args: servercmd.NoArgs,
		Long: `Make a token with which one agent can enrol once. It names the resources the
agent may serve: model (a model server), http (any web server) or tcp.`,
		Example: `  iap-relay admin agents token --name gpu-1 --resource phi3=model
  iap-relay admin agents token --name db-1 --resource pg=tcp --label env=prod`,
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if q.Resources, err = parseResources(resources, labels); err != nil {
				return servercmd.Usage(err)
			}
			return o.call(c, func(ctx context.Context, client *admin.Client) error {
				created, err := client.CreateJoinToken(ctx, q)
				if err != nil {
					return err
				}
				return printOr(c.OutOrStdout(), o.output, created, func(w io.Writer) {
					fmt.Fprintf(os.Stderr, "Good once, until %s. On the new agent's machine:\n  iap-agent join TOKEN\n", created.Expires.Local().Format(time.DateTime))
					fmt.Fprintln(w, created.Token)
				})
			})
		},
	}
	c.Flags().StringVar(&q.Name, "name", "", "the agent's name, for people")
	c.Flags().StringArrayVar(&resources, "resource", nil, "a resource it may serve, NAME=model|http|tcp (may be repeated)")
	c.Flags().StringArrayVar(&labels, "label", nil, "a label of these resources, NAME=VALUE (may be repeated)")
	c.Flags().StringVar(&q.TTL, "ttl", "", "how long the token is good (default 10m)")
	c.Flags().BoolVar(&q.Share, "share", false, "the resources may be served by other agents as well")
	return c
}

func parseResources(resources, labels []string) ([]admin.JoinResource, error) {
	var set map[string]string
	for _, text := range labels {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("--label %q: write NAME=VALUE", text)
		}
		if set == nil {
			set = map[string]string{}
		}
		set[name] = value
	}
	var all []admin.JoinResource
	for _, text := range resources {
		name, kind, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("--resource %q: write NAME=model, NAME=http or NAME=tcp", text)
		}
		all = append(all, admin.JoinResource{Name: name, Kind: kind, Labels: set})
	}
	if len(all) == 0 {
		return nil, errors.New("--resource: name at least one, such as --resource phi3=model")
	}
	return all, nil
}

func agentsRevoke(o *adminOptions) *cobra.Command {
	return &cobra.Command{Use: "revoke ID", Short: "Refuse an agent from now on and cut its sessions", Args: servercmd.OneArg, RunE: func(c *cobra.Command, args []string) error {
		return o.call(c, func(ctx context.Context, client *admin.Client) error {
			if _, err := client.RevokeAgent(ctx, args[0]); err != nil {
				return err
			}
			return printOr(c.OutOrStdout(), o.output, map[string]string{"revoked": args[0]}, func(w io.Writer) { fmt.Fprintf(w, "%s is revoked.\n", args[0]) })
		})
	}}
}

func sessionsLs(o *adminOptions) *cobra.Command {
	return &cobra.Command{Use: "ls", Short: "List the live sessions", Args: servercmd.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		return o.call(c, func(ctx context.Context, client *admin.Client) error {
			st, err := client.AdminStatus(ctx)
			if err != nil {
				return err
			}
			return printOr(c.OutOrStdout(), o.output, st.Sessions, func(w io.Writer) { printSessions(w, st.Sessions) })
		})
	}}
}

func printSessions(w io.Writer, all []admin.SessionInfo) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tWHO\tCLASS\tSTREAMS\tSINCE")
	for _, s := range all {
		who := s.Principal
		if who == "" {
			who = s.Agent
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", s.ID, plaintext.Clean(who), s.Class, s.Streams, s.Started.Local().Format(time.TimeOnly))
	}
	t.Flush()
}

func sessionsKill(o *adminOptions) *cobra.Command {
	return &cobra.Command{Use: "kill ID", Short: "End a session; its login is refused from now on", Args: servercmd.OneArg, RunE: func(c *cobra.Command, args []string) error {
		return o.call(c, func(ctx context.Context, client *admin.Client) error {
			if _, err := client.KillSession(ctx, args[0], ""); err != nil {
				return err
			}
			return printOr(c.OutOrStdout(), o.output, map[string]string{"killed": args[0]}, func(w io.Writer) {
				fmt.Fprintf(w, "%s has ended. Its user must log in again.\n", args[0])
			})
		})
	}}
}

func principalAct(o *adminOptions, verb, short string, act func(*admin.Client, context.Context, string, string) error) *cobra.Command {
	return &cobra.Command{Use: verb + " ISSUER/SUBJECT", Short: short, Args: servercmd.OneArg, RunE: func(c *cobra.Command, args []string) error {
		return o.call(c, func(ctx context.Context, client *admin.Client) error {
			if err := act(client, ctx, args[0], ""); err != nil {
				return err
			}
			return printOr(c.OutOrStdout(), o.output, map[string]string{verb + "d": args[0]}, func(w io.Writer) {
				fmt.Fprintf(w, "%s is %sd.\n", plaintext.Clean(args[0]), verb)
			})
		})
	}}
}

func policyReload(o *adminOptions) *cobra.Command {
	return &cobra.Command{Use: "reload", Short: "Read the policy files again", Args: servercmd.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		return o.call(c, func(ctx context.Context, client *admin.Client) error {
			revision, err := client.ReloadPolicy(ctx)
			if err != nil {
				return err
			}
			return printOr(c.OutOrStdout(), o.output, map[string]string{"revision": revision}, func(w io.Writer) { fmt.Fprintf(w, "Policy %s is in force.\n", revision) })
		})
	}}
}

func adminStatus(o *adminOptions) *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Tell how the relay is", Args: servercmd.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		return o.call(c, func(ctx context.Context, client *admin.Client) error {
			st, err := client.AdminStatus(ctx)
			if err != nil {
				return err
			}
			return printOr(c.OutOrStdout(), o.output, st, func(w io.Writer) {
				fmt.Fprintf(w, "relay     %s, version %s, up since %s\n", st.Relay, st.Version, st.Started.Local().Format(time.DateTime))
				fmt.Fprintf(w, "policy    %s\naudit     %s\nagents    %d online\nsessions  %d\n", st.PolicyRevision, st.Audit, st.Agents, len(st.Sessions))
			})
		})
	}}
}
