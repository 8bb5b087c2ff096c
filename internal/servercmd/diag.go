package servercmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/diag"
	"iap/internal/plaintext"
	"iap/internal/screen"
	"iap/internal/version"
)

// maxLogs is how many logs go into one report.
const maxLogs = 8

// Report is what one server adds to the command diag.
type Report struct {
	Program string // iap-agent
	Config  string // the configuration file, if no other is named
	Long    string // of the help
	// Fill tells the redactor this server's secrets, then puts in what there is.
	Fill func(ctx context.Context, b *diag.Bundle, config string)
}

// reportDocument is `diag -o json`.
type reportDocument struct {
	Schema string       `json:"schema"` // iap-agent/v1, iap-relay/v1
	File   string       `json:"file"`   // the zip
	Files  []reportFile `json:"files"`
}

type reportFile struct {
	Name  string `json:"name"`
	What  string `json:"what"`
	Bytes int    `json:"bytes"`
}

// Diag is the command that writes a zip without secrets.
func Diag(r Report) *cobra.Command {
	var config, file, output string
	var logs []string
	c := &cobra.Command{
		Use: "diag", Short: "Write a zip without secrets, to send with a report", Args: NoArgs, Long: r.Long,
		Example: "  " + r.Program + " diag\n  journalctl -u " + r.Program + " > log.txt && " + r.Program + " diag --log log.txt",
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case output != "text" && output != "json":
				return Usage(fmt.Errorf("--output %q: it is text or json", output))
			case len(logs) > maxLogs:
				return Usage(fmt.Errorf("--log: at most %d", maxLogs))
			}
			now := time.Now()
			if file == "" {
				file = r.Program + "-diag-" + now.UTC().Format("20060102T150405Z") + ".zip"
			}
			b := &diag.Bundle{Redact: diag.NewRedactor(), Now: now}
			b.Redact.KnowEnvironment(os.Environ())
			r.Fill(c.Context(), b, config) // first: it knows the secrets
			b.AddJSON("version.json", "which "+r.Program+" this is, and where it runs", version.Current())
			b.AddEnvironment(os.Environ())
			if err := addLogs(b, logs); err != nil {
				return err
			}
			if err := c.Context().Err(); err != nil {
				return err
			}
			if err := b.Write(file); errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%s exists already, and is never overwritten: name another --file", plaintext.Clean(file))
			} else if err != nil {
				return err
			}
			return printReport(c.OutOrStdout(), r.Program, file, output, b.Files())
		},
	}
	c.Flags().StringVarP(&config, "config", "c", r.Config, "configuration `file`")
	c.Flags().StringVar(&file, "file", "", "`file` to write; must not exist (default "+r.Program+"-diag-TIME.zip)")
	c.Flags().StringArrayVar(&logs, "log", nil, "`file` with what it logged, whose end goes in; may be repeated")
	c.Flags().StringVarP(&output, "output", "o", "text", "`format`: text or json")
	return c
}

// addLogs puts the ends of logs in; one that somebody named and that is not there was meant to be.
func addLogs(b *diag.Bundle, logs []string) error {
	for i, path := range logs {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("--log: %w", err)
		}
		b.AddLog(fmt.Sprintf("logs/%d-%s", i+1, filepath.Base(path)), "the end of what it logged", path)
	}
	return nil
}

func printReport(w io.Writer, program, file, output string, files []diag.File) error {
	if abs, err := filepath.Abs(file); err == nil {
		file = abs
	}
	if output == "json" {
		doc := reportDocument{Schema: program + "/v1", File: file}
		for _, f := range files {
			doc.Files = append(doc.Files, reportFile{f.Name, f.What, len(f.Data)})
		}
		text, err := json.MarshalIndent(doc, "", "  ")
		if err == nil {
			_, err = w.Write(append(plaintext.JSON(text), '\n'))
		}
		return err
	}
	rows := make([][]string, len(files))
	for i, f := range files {
		rows[i] = []string{plaintext.Clean(f.Name), fmt.Sprint(len(f.Data)), f.What}
	}
	screen.Table(w, screen.Styles{}, []string{"FILE", "BYTES", "WHAT"}, rows)
	fmt.Fprintf(w, "Written to %s\nLook at it before you send it: names are in it, secrets are not.\n", plaintext.Clean(file))
	return nil
}
