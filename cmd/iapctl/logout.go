package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"iap/auth"
	"iap/internal/profile"
)

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "Revoke the login and delete it from this machine",
		Long: `Ask the identity provider to revoke the tokens of this profile, then delete
them and the session key from this machine.

Where the provider has no revocation, or cannot be reached, the local part is
deleted all the same and the command says so.`,
		Example: `  iapctl logout
  iapctl --profile work logout`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.logout(cmd.Context()) },
	}
}

func (a *app) logout(ctx context.Context) error {
	p, err := a.profile()
	if err != nil {
		return err
	}
	store := a.store(p)
	credentials, err := store.Load(ctx, p.Name)
	if errors.Is(err, auth.ErrNotFound) {
		return &failure{code: "login_required", what: fmt.Sprintf("profile %s is not logged in", p.Name), next: "iapctl login"}
	}
	state, stateErr := p.State()
	if err = errors.Join(err, stateErr); err != nil {
		return err
	}
	doc := logoutDocument{Schema: schemaName, Profile: p.Name}
	doc.Revoked, doc.Reason = a.revoke(ctx, state.Login, credentials.Tokens)
	if err := store.Delete(ctx, p.Name); err != nil {
		return err
	}
	if err := p.Update(ctx, func(s *profile.State) error { s.Login = nil; return nil }); err != nil {
		return err
	}
	doc.Deleted = true
	if done, err := a.json(doc); done {
		return err
	}
	if doc.Revoked {
		a.say("%s The provider has revoked the tokens of this login.", a.ui.err.good.Render("✓"))
	} else {
		a.say("%s The tokens were not revoked: %s.", a.ui.err.bad.Render("!"), doc.Reason)
	}
	a.say("%s Tokens and session key are deleted from %s.", a.ui.err.good.Render("✓"), clean(store.Where()))
	return nil
}

// revoke reports whether the provider revoked the tokens, or why not.
func (a *app) revoke(ctx context.Context, l *profile.Login, t auth.Tokens) (bool, string) {
	if l == nil {
		return false, "the provider of this login is not known any more"
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := a.providerLogin(l).Revoke(ctx, t)
	switch {
	case err == nil:
		return true, ""
	case errors.Is(err, auth.ErrNoRevocation):
		return false, "this provider has no revocation; they end at " + clock(t.Expires)
	}
	return false, clean(failureOf(err).what) + "; they end at " + clock(t.Expires)
}
