package main

import (
	"context"
	"fmt"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"iap/internal/admin"
)

func (a *app) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "whoami",
		Short: "Show who the relay takes you for",
		Long: `Show the identity the relay has verified, and the lines that name you in its
grants.yaml. Give those to the relay's operator to be granted something.`,
		Example: `  iapctl whoami
  iapctl whoami -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.whoami(cmd.Context()) },
	}
}

func (a *app) whoami(ctx context.Context) error {
	p, err := a.relayProfile()
	if err != nil {
		return err
	}
	var who admin.Whoami
	err = a.withRelay(ctx, p, func(ctx context.Context, client *admin.Client) (err error) {
		who, err = client.Whoami(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if done, err := a.json(whoamiDocument{Schema: schemaName, Whoami: who}); done {
		return err
	}
	a.pairs(a.out, a.ui.out, 0, whoamiPairs(who)...)
	fmt.Fprintf(a.out, "\n%s\n", a.ui.out.dim.Render("Lines that name you in grants.yaml, under to: (any one is enough)"))
	for _, line := range who.Lines {
		fmt.Fprintf(a.out, "  - %q\n", clean(line))
	}
	if who.Grants == 0 {
		a.say("\nNo grant names you yet: give a line to the relay's operator.")
	}
	return nil
}

func whoamiPairs(who admin.Whoami) [][2]string {
	name := strings.TrimSpace(clean(who.Name))
	if who.Email != "" {
		name = strings.TrimSpace(name + " <" + clean(who.Email) + ">")
	}
	groups := strings.Join(cleanEach(who.Groups), ", ")
	if who.GroupsUnknown {
		groups = "unknown: the provider names them by reference only; requests are denied"
	}
	mfa := yesNo(who.MFA)
	if who.MFASource != "" {
		mfa += " (" + clean(who.MFASource) + ")"
	}
	login := ""
	if who.AuthTime != nil {
		login = clock(*who.AuthTime)
	}
	ends := "never"
	if who.Session.Expires != nil {
		ends = clock(*who.Session.Expires) + ", renewed before"
	}
	return [][2]string{
		{"Principal", clean(who.Principal)},
		{"Name", name},
		{"Provider", strings.TrimSpace(clean(who.Issuer) + " " + clean(who.IssuerURL))},
		{"Groups", firstOf(groups, "none")},
		{"Claims", claimsText(who.Claims)},
		{"MFA", mfa},
		{"Logged in", login},
		{"Key", clean(who.Session.Key)},
		{"Bound by", clean(who.Binding)},
		{"Session ends", ends},
		{"Admin", yesNo(who.Admin)},
		{"Grants", fmt.Sprint(who.Grants)},
	}
}

func claimsText(claims map[string][]string) string {
	var parts []string
	for name, values := range claims {
		parts = append(parts, clean(name)+"="+strings.Join(cleanEach(values), ","))
	}
	sort.Strings(parts)
	return strings.Join(parts, " ")
}
