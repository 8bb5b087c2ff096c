package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/policy"
)

type keyOptions struct {
	name      string
	resources []string
	actions   []string
	models    []string
	ttl       string
}

func (a *app) keysCommand() *cobra.Command {
	var o keyOptions
	create := &cobra.Command{
		Use: "create --name NAME --resource RESOURCE --actions ACTION,...", Short: "Make a key for a program", Args: noArgs,
		Long: `Make a key for a program that has only a field for an API key: a chat page, an
editor's plug-in, a job. It works at the relay's front door, over plain HTTPS,
and may do what you may, never more than what is listed here. It is shown once.

It ends when it expires, when you revoke it, and with your own rights; it also
sleeps while you have not logged in for long. A grant must allow keys.`,
		Example: `  iapctl keys create --name openwebui --resource phi3 \
    --actions chat,list-models --ttl 90d
  iapctl keys create --name ide --resource phi3 --actions complete`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.keyCreate(cmd.Context(), o) },
	}
	flags := create.Flags()
	flags.StringVar(&o.name, "name", "", "`name` of the key, to tell it from your others")
	flags.StringSliceVar(&o.resources, "resource", nil, "`resource` it is for; may be repeated")
	flags.StringSliceVar(&o.actions, "actions", nil, "`actions` it may do, with commas between")
	flags.StringSliceVar(&o.models, "model", nil, "`model` it is for (default: each you may use); may be repeated")
	flags.StringVar(&o.ttl, "ttl", "", "`time` it lives: 12h, 90d (default 30d, or what the grant allows)")
	_ = create.RegisterFlagCompletionFunc("resource", a.completeResources)
	var all, anybodys bool
	ls := &cobra.Command{
		Use: "ls", Short: "List your keys", Args: noArgs,
		Example: "  iapctl keys ls\n  iapctl keys ls --all -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all {
				return a.console().KeysLs(cmd.Context(), a.out)
			}
			return a.keyList(cmd.Context())
		},
	}
	ls.Flags().BoolVar(&all, "all", false, "everybody's, for administrators")
	revoke := &cobra.Command{
		Use: "revoke NAME|ID", Short: "End a key, and what runs with it", Args: rangeArgs(1, 1),
		Long: `End a key at once: what runs with it is cut within a second. Administrators end
the keys of others by their id, with --any.`,
		Example: "  iapctl keys revoke openwebui",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.keyRevoke(cmd.Context(), args[0], anybodys) },
	}
	revoke.Flags().BoolVar(&anybodys, "any", false, "anybody's key, by its id, for administrators")
	return group("keys COMMAND", "Make keys for programs with only a key field", `Keys are for programs that cannot run iapctl and have only a field for an API
key. Everything else is better served by: iapctl connect`, create, ls, revoke)
}

// request is what the relay is asked for; what it means, the relay says.
func (o keyOptions) request() (admin.NewKey, error) {
	q := admin.NewKey{Name: o.name, Resources: o.resources, Actions: o.actions, Models: o.models}
	switch {
	case o.name == "":
		return q, usage("a key needs a name: --name openwebui")
	case len(o.resources) == 0:
		return q, usage("what is the key for? --resource phi3")
	case len(o.actions) == 0:
		return q, usage("what may the key do? --actions chat,list-models")
	}
	if o.ttl != "" {
		ttl, err := policy.ParseDuration(o.ttl)
		if err != nil || ttl < time.Second {
			return q, usage("--ttl wants a time such as 12h or 90d, not %q", clean(o.ttl))
		}
		q.TTL = int64(ttl / time.Second)
	}
	return q, nil
}

func (a *app) keyCreate(ctx context.Context, o keyOptions) error {
	q, err := o.request()
	if err != nil {
		return err
	}
	p, err := a.relayProfile()
	if err != nil {
		return err
	}
	var k admin.KeyCreated
	err = a.withStepUp(ctx, func() error {
		return a.withRelay(ctx, p, func(ctx context.Context, client *admin.Client) (err error) {
			k, err = client.CreateKey(ctx, q)
			return err
		})
	})
	if err != nil {
		return err
	}
	if done, err := a.json(keyDocument{Schema: schemaName, KeyCreated: k}); done {
		return err
	}
	base := k.URL + q.Resources[0]
	a.say("The key %s is shown this once. It is good until %s; end it with: %s\n", clean(k.Name), clock(k.Expires), a.inProfile("iapctl keys revoke "+clean(k.Name)))
	a.pairs(a.err, a.ui.err, 0,
		[2]string{"OpenAI clients", clean(base) + "/v1"}, [2]string{"Anthropic clients", clean(base)}, [2]string{"Ollama clients", clean(base)})
	a.say("")
	_, err = a.out.Write([]byte(clean(k.Text) + "\n"))
	return err
}

func (a *app) keyList(ctx context.Context) error {
	p, err := a.relayProfile()
	if err != nil {
		return err
	}
	var list []admin.Key
	err = a.withRelay(ctx, p, func(ctx context.Context, client *admin.Client) (err error) {
		list, err = client.Keys(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if done, err := a.json(keysDocument{Schema: schemaName, Keys: list}); done {
		return err
	}
	if len(list) == 0 {
		a.say("There are no keys. Make one with: %s", a.inProfile("iapctl keys create"))
		return nil
	}
	var rows [][]string
	for _, k := range list {
		rows = append(rows, []string{clean(k.Name), clean(k.ID), a.keyState(k), keyUse(k), keyScope(k)})
	}
	a.table([]string{"NAME", "ID", "STATE", "USED", "MAY"}, rows)
	return nil
}

func (a *app) keyState(k admin.Key) string {
	if k.State == "good" {
		return a.ui.out.good.Render("until " + clock(k.Expires))
	}
	return a.ui.out.bad.Render(clean(k.State))
}

func keyUse(k admin.Key) string {
	if k.LastUsed == nil {
		return "never"
	}
	return clock(*k.LastUsed)
}

func keyScope(k admin.Key) string {
	text := strings.Join(cleanEach(k.Actions), ", ") + " on " + strings.Join(cleanEach(k.Resources), ", ")
	if len(k.Models) > 0 {
		text += "\nwith " + strings.Join(cleanEach(k.Models), ", ")
	}
	return text
}

func (a *app) keyRevoke(ctx context.Context, which string, anybodys bool) error {
	p, err := a.relayProfile()
	if err != nil {
		return err
	}
	var k admin.Key
	err = a.withRelay(ctx, p, func(ctx context.Context, client *admin.Client) (err error) {
		if anybodys {
			k = admin.Key{ID: which, Name: which}
			return client.AdminRevokeKey(ctx, which)
		}
		k, err = client.RevokeKey(ctx, which)
		return err
	})
	if err != nil {
		return err
	}
	return a.done("revoke", "The key "+clean(k.Name)+" is revoked.", k.ID)
}
