package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/profile"
	"iap/policy"
	"iap/tunnel"
)

const loginTimeout = 30 * time.Minute // providers give a device code 5 to 30 minutes; their own limit ends it earlier

type loginOptions struct {
	browser bool
	noOpen  bool
	issuer  string
	acr     string        // classes of which the provider is asked for one
	maxAge  time.Duration // that the login may have; 0: any
}

func (a *app) loginCommand() *cobra.Command {
	var o loginOptions
	var maxAge string
	cmd := &cobra.Command{
		Use:   "login [RELAY]",
		Short: "Log in at the relay's identity provider",
		Long: `Log in at the identity provider of a relay and remember the relay.

By default a code is shown that you confirm in a browser, on this machine or
any other. With --browser the login happens in a browser on this machine; it
resists phishing better and works where device codes are forbidden.

Some grants ask for more: a second factor, a class of login, a recent one. Then
iapctl says which login would do, with --acr and --max-age.

Confirm a code only if you started the login yourself.`,
		Example: `  iapctl login iap.example.com
  iapctl login                              again, at the same relay
  iapctl login --browser
  iapctl --profile work login iap.example.com --issuer corp
  iapctl login iap.test:8443 --ca-file ca.pem`,
		Args: maxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if maxAge != "" {
				if o.maxAge, err = policy.ParseDuration(maxAge); err != nil {
					return usage("--max-age wants a time such as 1h, not %q", clean(maxAge))
				}
			}
			return a.login(cmd.Context(), o, append(args, "")[0])
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.browser, "browser", false, "log in by a browser on this machine")
	flags.BoolVar(&o.noOpen, "no-open", false, "do not open a browser, only show the address")
	flags.StringVar(&o.acr, "acr", "", "`classes` of login (acr_values), the preferred first")
	flags.StringVar(&maxAge, "max-age", "", "`time` since the login at most, such as 1h")
	flags.StringVar(&o.issuer, "issuer", "", "identity `provider`, if the relay has several")
	return cmd
}

func (a *app) login(ctx context.Context, o loginOptions, relay string) error {
	p, err := a.loginProfile(relay)
	if err != nil {
		return err
	}
	relayInfo, err := discover(ctx, p)
	if err != nil {
		return err
	}
	issuer, err := chooseIssuer(relayInfo.Issuers, o.issuer, p.Settings.Issuer)
	if err != nil {
		return err
	}
	key, err := auth.NewKey()
	if err != nil {
		return err
	}
	stamp := newLoginStamp(issuer)
	provider := a.providerLogin(stamp)
	o.ask(provider)
	tokens, err := a.obtainTokens(ctx, o, provider, p.Settings.Relay, auth.NonceForKey(key.Public().(ed25519.PublicKey)))
	if err != nil {
		return err
	}
	if len(relayInfo.Issuers) > 1 {
		p.Settings.Issuer = issuer.Name
	}
	return a.finishLogin(ctx, p, relayInfo, stamp, auth.Credentials{Tokens: *tokens, Key: key})
}

// loginProfile finds the profile to log in with. A profile belongs to one relay, so that its ports and keys mean something.
func (a *app) loginProfile(relay string) (*profile.Profile, error) {
	p, err := a.profile()
	if err != nil {
		return nil, err
	}
	relay = strings.TrimSuffix(strings.TrimPrefix(relay, "https://"), "/")
	switch {
	case relay == "" && p.Settings.Relay == "":
		return nil, &failure{code: "usage", what: "which relay? This profile has none yet", next: "iapctl login RELAY"}
	case relay == "" || relay == p.Settings.Relay:
		return p, nil
	case p.Settings.Relay != "":
		return nil, &failure{
			code: "profile_conflict", exitCode: exitUsage,
			what: fmt.Sprintf("profile %s belongs to %s", p.Name, clean(p.Settings.Relay)),
			next: fmt.Sprintf("iapctl --profile NAME login %s", clean(relay)),
		}
	case strings.ContainsAny(relay, "/?#@ \t\r\n") || clean(relay) != relay:
		return nil, usage("a relay is named HOST or HOST:PORT, not %q", clean(relay))
	}
	p.Settings.Relay = relay
	return p, nil
}

// chooseIssuer picks the provider: the one asked for, the one of the last login, the only one.
func chooseIssuer(list []admin.DiscoveryIssuer, asked, remembered string) (admin.DiscoveryIssuer, error) {
	var names []string
	for _, name := range []string{asked, remembered} {
		for _, i := range list {
			if name != "" && i.Name == name {
				return i, nil
			}
		}
		if name == asked && asked != "" {
			break
		}
	}
	if len(list) == 1 && asked == "" {
		return list[0], nil
	}
	for _, i := range list {
		names = append(names, clean(i.Name))
	}
	if len(names) == 0 {
		return admin.DiscoveryIssuer{}, &failure{code: "no_issuer", what: "nobody can log in at this relay: it names no identity provider", next: "ask the relay's operator"}
	}
	return admin.DiscoveryIssuer{}, &failure{
		code: "usage", what: "the relay has several identity providers: " + strings.Join(names, ", "),
		next: "iapctl login --issuer " + names[0],
	}
}

func newLoginStamp(i admin.DiscoveryIssuer) *profile.Login {
	return &profile.Login{
		ID: rand.Text(), At: time.Now().UTC().Truncate(time.Second),
		IssuerName: i.Name, IssuerURL: i.URL, ClientID: i.ClientID, ClientSecret: i.PublicClientSecret,
		Scopes: i.Scopes, Pick: i.Token, Audience: i.Audience,
	}
}

func (a *app) obtainTokens(ctx context.Context, o loginOptions, l *auth.Login, relay, nonce string) (*auth.Tokens, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	if o.browser {
		return a.browserLogin(ctx, o, l, relay, nonce)
	}
	stopSpinner := func() {}
	tokens, err := l.Device(ctx, func(p auth.DevicePrompt) {
		a.showPrompt(p, relay)
		if !o.noOpen && p.Open != "" && terminal(a.err) && auth.OpenBrowser(p.Open) == nil {
			a.say("A browser has been opened.")
		}
		stopSpinner = a.spinner("Waiting for the confirmation")
	})
	stopSpinner()
	return tokens, err
}

func (a *app) browserLogin(ctx context.Context, o loginOptions, l *auth.Login, relay, nonce string) (*auth.Tokens, error) {
	stopSpinner := func() {}
	tokens, err := l.Browser(ctx, nonce, func(url string) error {
		if o.noOpen || auth.OpenBrowser(url) != nil {
			a.say("Open this address in a browser on this machine to log in to %s:\n\n  %s\n", clean(relay), clean(url))
		} else {
			a.say("Log in to %s in the browser that has been opened.", clean(relay))
		}
		stopSpinner = a.spinner("Waiting for the browser")
		return nil
	})
	stopSpinner()
	return tokens, err
}

// showPrompt shows the code. The relay's name and the warning are what a person needs to notice a login that somebody else began.
func (a *app) showPrompt(p auth.DevicePrompt, relay string) {
	if a.output == "json" {
		_ = json.NewEncoder(a.err).Encode(promptDocument{
			Schema: schemaName, VerificationURI: clean(p.VerificationURI), Complete: clean(p.VerificationURIComplete),
			UserCode: clean(p.UserCode), Expires: p.Expires,
		})
		return
	}
	s := a.ui.err
	a.say("To log in to %s, open\n", s.bold.Render(clean(relay)))
	a.say("  %s\n", clean(p.VerificationURI))
	a.say("and enter the code  %s\n", s.bold.Render(clean(p.UserCode)))
	if p.VerificationURIComplete != "" && p.VerificationURIComplete != p.VerificationURI {
		a.say("or open this address and compare the code:\n\n  %s\n", clean(p.VerificationURIComplete))
	}
	a.say("%s", s.dim.Render("Confirm it only if you started this login yourself. Valid until "+clock(p.Expires)+"."))
}

// finishLogin saves the login and lets the relay confirm it once, which also binds the token to this key.
func (a *app) finishLogin(ctx context.Context, p *profile.Profile, relay admin.Discovery, stamp *profile.Login, c auth.Credentials) error {
	store := a.store(p)
	if err := p.Save(); err != nil {
		return err
	}
	if err := store.Save(ctx, p.Name, c); err != nil {
		return err
	}
	stamp.Name = firstOf(c.Tokens.Email, c.Tokens.Name)
	err := p.Update(ctx, func(s *profile.State) error {
		s.Login, s.Relays = stamp, knownRelays(relay.Relays)
		return nil
	})
	if err == nil {
		err = p.Remember(ctx, relay.RelayKey, relay.RelayChain, relay.ChannelBinding)
	}
	if err != nil {
		return err
	}
	if err := a.makeCurrent(p); err != nil {
		return err
	}
	who, err := a.confirmLogin(ctx, p)
	if err != nil {
		return err
	}
	return a.reportLogin(p, store, stamp, who, c.Tokens.Expires)
}

// makeCurrent lets the first profile be the current one without a further command.
func (a *app) makeCurrent(p *profile.Profile) error {
	current, err := a.dirs.Current()
	if err != nil {
		return err
	}
	if c, err := a.dirs.Open(current); err == nil && c.Saved() {
		return nil
	}
	return a.dirs.Use(p.Name)
}

func (a *app) confirmLogin(ctx context.Context, p *profile.Profile) (who admin.Whoami, err error) {
	err = a.withRelay(ctx, p, func(ctx context.Context, client *admin.Client) error {
		who, err = client.Whoami(ctx)
		if err != nil {
			return err
		}
		return p.Update(ctx, func(s *profile.State) error {
			if s.Login != nil {
				s.Login.Principal = who.Principal
			}
			return nil
		})
	})
	if tunnel.CodeOf(err) == tunnel.CodeTokenInvalid {
		return who, &failure{
			code: "token_invalid", what: "the login worked, but the relay does not accept its token", cause: err,
			next: "ask the relay's operator to check the issuer's audience and client id",
		}
	}
	return who, err
}

func (a *app) reportLogin(p *profile.Profile, store auth.Store, stamp *profile.Login, who admin.Whoami, expires time.Time) error {
	doc := loginDocument{
		Schema: schemaName, Profile: p.Name, Relay: p.Settings.Relay, Issuer: stamp.IssuerName,
		Principal: who.Principal, Name: who.Name, Grants: who.Grants, Store: store.Where(), Expires: timePtr(expires),
	}
	if done, err := a.json(doc); done {
		return err
	}
	name := firstOf(clean(who.Name), clean(who.Email), clean(stamp.Name), "you")
	a.say("%s Logged in to %s as %s (%s).", a.ui.err.good.Render("✓"), clean(p.Settings.Relay), a.ui.err.bold.Render(name), clean(who.Principal))
	a.say("  Credentials are kept in\n  %s", clean(store.Where()))
	if who.Grants == 0 {
		a.say("\nNo grant names you yet. Give the lines of this to the relay's operator:\n\n  %s", a.inProfile("iapctl whoami"))
		return nil
	}
	a.say("\nNext: %s", a.ui.err.bold.Render(a.inProfile("iapctl resources")))
	return nil
}

func timePtr(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
