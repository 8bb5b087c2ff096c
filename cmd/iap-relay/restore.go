package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/audit/verify"
	"iap/internal/backup"
	"iap/internal/plaintext"
	"iap/internal/relay"
	"iap/internal/screen"
	"iap/internal/servercmd"
	"iap/internal/state"
)

// restoredDocument is restore -o json.
type restoredDocument struct {
	Schema string    `json:"schema"`
	Data   string    `json:"data"`
	Config string    `json:"config,omitempty"`
	Taken  time.Time `json:"taken"` // what was decided later is forgotten

	Forgotten *relay.Forgotten `json:"forgotten,omitempty"` // of the state
	Log       string           `json:"log,omitempty"`       // folder of the old log
	LogOK     bool             `json:"log_ok,omitempty"`    // it verifies
	LogLast   uint64           `json:"log_last,omitempty"`  // its last record
	Problem   string           `json:"problem,omitempty"`   // the first, if it does not

	LeftOut []backup.LeftOut `json:"left_out"`
	Named   string           `json:"instance,omitempty"` // relay.yaml names this id, which must change
}

func restoreCommand() *cobra.Command {
	var to, identity, output string
	var logins bool
	c := &cobra.Command{
		Use: "restore FILE --data DIR", Short: "Make a data folder of a backup", Args: servercmd.OneArg,
		Long: `Check a backup, - for standard input, and make a new data folder of it, which is
there when all is in it, and not before. Then start a relay whose relay.yaml
says "data: DIR"; the one that it had is in DIR/config.

Nothing that was good once becomes good again: unused join tokens are void,
logins are forgotten and everybody logs in anew (--keep-logins: whoever was
killed or logged out after the backup comes back with the same key).
Revocations of people, agents and keys made after the backup are NOT in it:
repeat them. The old audit log stays as it was, in a folder of its own, and the
relay begins a new one under a new id: agents may have witnessed more of the
old one than is left.`,
		Example: "  iap-relay restore relay.backup --identity key.txt --data /var/lib/iap-relay",
		RunE: func(c *cobra.Command, args []string) error {
			if to == "" {
				return servercmd.Usage(errors.New("--data: name the folder to make"))
			}
			return readBackup(c.InOrStdin(), args[0], identity, func(r io.Reader) error {
				doc, err := restore(c.Context(), r, to, logins, slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil)))
				if err != nil {
					return err
				}
				return printOr(c.OutOrStdout(), output, doc, func(w io.Writer) { printRestored(w, doc) })
			})
		},
	}
	c.Flags().StringVar(&to, "data", "", "`folder` to make; one that is there must be empty")
	c.Flags().StringVar(&identity, "identity", "", "`file` with the private key that opens it")
	c.Flags().BoolVar(&logins, "keep-logins", false, "nobody has to log in anew")
	outputFlag(c, &output)
	return c
}

func restore(ctx context.Context, from io.Reader, to string, logins bool, log *slog.Logger) (*restoredDocument, error) {
	doc := &restoredDocument{Schema: "iap-relay/v1"}
	r, err := backup.Restore(ctx, from, to, func(draft string, r *backup.Restored) error {
		if err := newRelay(draft); err != nil {
			return fmt.Errorf("restore: %w", err)
		}
		if r.Log != "" {
			if err := doc.verify(ctx, filepath.Join(draft, r.Log)); err != nil {
				return fmt.Errorf("restore: %w", err)
			}
		}
		if r.Manifest.State != "sqlite" {
			return nil
		}
		return doc.settle(ctx, filepath.Join(draft, backup.StateName), logins, log)
	})
	if err != nil {
		return nil, err
	}
	doc.Data, doc.Config, doc.Log = r.Dir, r.Config, r.Log
	doc.Taken, doc.LeftOut, doc.Named = r.Manifest.Taken, r.Manifest.LeftOut, r.Manifest.Instance
	return doc, nil
}

// newRelay takes out what belongs to the old log: the relay's id, and how much of the log was
// sent elsewhere.
func newRelay(data string) error {
	if err := os.Remove(filepath.Join(data, "instance")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.RemoveAll(filepath.Join(data, "sinks"))
}

func (d *restoredDocument) verify(ctx context.Context, dir string) error {
	report, err := verify.Run(ctx, verify.Options{Dir: dir})
	if errors.Is(err, verify.ErrNoLog) {
		return nil
	}
	if err != nil {
		return err
	}
	d.LogOK, d.LogLast = report.OK, report.Last
	if len(report.Problems) > 0 {
		d.Problem = report.Problems[0].String()
	}
	return nil
}

func (d *restoredDocument) settle(ctx context.Context, file string, logins bool, log *slog.Logger) error {
	s, err := state.OpenWith(ctx, "sqlite:"+file, state.Options{Logger: log})
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	f, err := relay.Settle(ctx, s, logins)
	d.Forgotten = &f
	return errors.Join(err, s.Close())
}

func printRestored(w io.Writer, d *restoredDocument) {
	taken := d.Taken.Format(time.RFC3339)
	fmt.Fprintf(w, "Restored %s, as of %s\n", plaintext.Clean(d.Data), taken)
	say := func(what, text string) { printFact(w, what, text) }
	if d.Forgotten != nil {
		say("State", "void now: "+screen.Count(d.Forgotten.JoinTokens, "join token")+"; forgotten: "+screen.Count(d.Forgotten.Logins, "login"))
	} else {
		say("State", "not in the backup: restore the database before the relay starts")
	}
	switch {
	case d.Log == "":
		say("Log", "not in the backup")
	case d.Problem != "":
		say("Log", "the old one, in "+d.Log+", is NOT what was written: "+d.Problem)
	default:
		say("Log", fmt.Sprintf("the old one, up to record %d, is in %s and verifies; the relay begins a new one", d.LogLast, d.Log))
	}
	if d.Config != "" {
		say("Config", "as it was, in "+d.Config)
	}
	for _, l := range d.LeftOut {
		say("Missing", l.Name+" ("+l.Why+")")
	}
	if d.Named != "" {
		say("CHANGE", `relay.yaml names "instance: `+d.Named+`": give it another, or agents take the new log for a forged old one`)
	}
	say("REPEAT", "what was revoked after "+taken+": people, agents, keys. The log that the relay wrote since, or what its sinks were sent, names it (audit query --kind admin)")
}
