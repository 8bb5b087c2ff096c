package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/diag"
	"iap/internal/profile"
	"iap/internal/version"
)

const (
	// diagTimeout bounds the doctor's part of it.
	diagTimeout = 60 * time.Second
	// maxLogs is how many logs of background processes go in.
	maxLogs = 8
)

// diagDocument: diag.
type diagDocument struct {
	Schema string             `json:"schema"`
	File   string             `json:"file"` // the zip
	Files  []diagFileDocument `json:"files"`
}

type diagFileDocument struct {
	Name  string `json:"name"`
	What  string `json:"what"`
	Bytes int    `json:"bytes"`
}

func (a *app) diagCommand() *cobra.Command {
	var file, resource string
	cmd := &cobra.Command{
		Use:   "diag",
		Short: "Write a zip without secrets, to send with a report",
		Long: `Write what helps to find a fault into a zip: versions, the operating system, the
profile, what is remembered, what runs here, the doctor's findings and the ends
of the logs of connects in the background. Tokens, keys and passwords are left
out, and taken out of whatever else goes in. What is in it is listed: look at it
before you send it. Names are in it: the relay's, yours, those of resources.`,
		Example: `  iapctl diag
  iapctl diag --resource phi3 --file report.zip`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.diag(cmd.Context(), file, resource) },
	}
	cmd.Flags().StringVar(&file, "file", "", "`file` to write; must not exist (default iapctl-diag-TIME.zip here)")
	cmd.Flags().StringVar(&resource, "resource", "", "`resource` for the doctor to look at, too")
	_ = cmd.RegisterFlagCompletionFunc("resource", a.completeResources) // fails only for a flag that is not there
	return cmd
}

func (a *app) diag(ctx context.Context, file, resource string) error {
	now := time.Now()
	if file == "" {
		file = "iapctl-diag-" + now.UTC().Format("20060102T150405Z") + ".zip"
	}
	b := &diag.Bundle{Redact: diag.NewRedactor(), Now: now}
	p, profileErr := a.relayProfile()
	a.knowSecrets(ctx, b.Redact, p)
	b.AddJSON("version.json", "which iapctl this is, and where it runs", version.Current())
	b.AddEnvironment(a.environ)
	if profileErr != nil {
		b.Add("profile.txt", "why there is no profile", []byte(failureOf(profileErr).Error()+"\n"))
	} else {
		a.addProfile(b, p)
	}
	examining, cancel := context.WithTimeout(ctx, diagTimeout)
	found, _ := a.examine(examining, resource) // what failed is in it
	cancel()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	b.AddJSON("doctor.json", "what iapctl doctor finds", found.doc)
	if err := b.Write(file); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return &failure{code: "file_exists", what: clean(file) + " exists already, and is never overwritten", next: "--file ANOTHER.zip", cause: err}
		}
		return &failure{code: "file_not_written", what: clean(err.Error()), next: "--file FILE somewhere else", cause: err}
	}
	return a.reportDiag(file, b.Files())
}

func (a *app) reportDiag(file string, files []diag.File) error {
	if abs, err := filepath.Abs(file); err == nil {
		file = abs
	}
	doc := diagDocument{Schema: schemaName, File: file}
	var rows [][]string
	for _, f := range files {
		doc.Files = append(doc.Files, diagFileDocument{f.Name, f.What, len(f.Data)})
		rows = append(rows, []string{f.Name, fmt.Sprint(len(f.Data)), f.What})
	}
	if done, err := a.json(doc); done {
		return err
	}
	a.table([]string{"FILE", "BYTES", "WHAT"}, rows)
	a.say("Written to %s\nLook at it before you send it: names are in it, secrets are not.", clean(file))
	return nil
}

// addProfile puts in what a profile has on disk, but for credentials.
func (a *app) addProfile(b *diag.Bundle, p *profile.Profile) {
	b.AddJSON("profile.json", "the profile's settings", p.Settings)
	state, err := p.State()
	if err == nil {
		if state.Login != nil {
			login := *state.Login
			login.ClientSecret = ""
			state.Login = &login
		}
		b.AddJSON("state.json", "what iapctl remembers of the relay", state)
	}
	if status, statusErr := a.localStatus(p); statusErr == nil {
		b.AddJSON("status.json", "what is connected here", status)
	}
	if err != nil {
		b.Add("state.txt", "why nothing is remembered", []byte(err.Error()+"\n"))
	}
	logs, err := filepath.Glob(filepath.Join(runningDir(p), "*.log"))
	if err != nil {
		return // the folder's name has odd brackets
	}
	slices.Sort(logs)
	for _, log := range logs[:min(len(logs), maxLogs)] {
		b.AddLog("logs/"+filepath.Base(log), "the end of what a background process said", log)
	}
}

// knowSecrets tells the redactor every secret that this profile and this process hold, in case one stands where none should.
func (a *app) knowSecrets(ctx context.Context, r *diag.Redactor, p *profile.Profile) {
	r.KnowEnvironment(a.environ)
	if p == nil {
		return
	}
	if state, err := p.State(); err == nil && state.Login != nil {
		r.Know(state.Login.ClientSecret)
	}
	if runs, err := a.registry(p).List(); err == nil {
		for _, run := range runs {
			r.Know(run.LocalKey)
		}
	}
	c, err := a.store(p).Load(ctx, p.Name)
	if err != nil {
		return
	}
	r.Know(c.Tokens.Token, c.Tokens.IDToken, c.Tokens.AccessToken, c.Tokens.RefreshToken, string(c.Key), base64.StdEncoding.EncodeToString(c.Key))
	if len(c.Key) > 0 {
		r.Know(base64.StdEncoding.EncodeToString(c.Key.Seed()))
	}
}
