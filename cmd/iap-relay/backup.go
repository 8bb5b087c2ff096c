package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/backup"
	"iap/internal/plaintext"
	"iap/internal/relay/settings"
	"iap/internal/screen"
	"iap/internal/sealed"
	"iap/internal/servercmd"
	"iap/internal/version"
)

// backupOptions are the flags of backup.
type backupOptions struct {
	config, out, output string
	recipients          []string
	plain, withoutAudit bool
}

func backupCommand() *cobra.Command {
	var o backupOptions
	c := &cobra.Command{
		Use: "backup --out FILE", Short: "Write state, keys and audit log into one file", Args: servercmd.NoArgs,
		Long: `Write the relay's state, its keys, its audit log and its configuration into one
file, also while the relay runs. The file holds private keys, so it is sealed to
the public key of whoever may restore it (age, https://age-encryption.org): make
a pair with age-keygen, and keep the private key away from the relay.

What is not in it is said: the certificate and secrets outside the data folder.
A state in PostgreSQL is backed up by the means of PostgreSQL.`,
		Example: "  iap-relay backup --out relay.backup --recipient age1…\n  iap-relay backup --out - --recipient keys.txt | ssh vault 'cat > relay.backup'\n  iap-relay backup check relay.backup --identity key.txt",
		RunE: func(c *cobra.Command, _ []string) error {
			m, err := o.write(c.Context(), c.OutOrStdout())
			if err != nil {
				return err
			}
			to := c.OutOrStdout()
			if o.out == "-" {
				to = c.ErrOrStderr()
			}
			return printOr(to, o.output, m, func(w io.Writer) { printBackup(w, "Written", o.out, m) })
		},
	}
	c.Flags().StringVarP(&o.config, "config", "c", defaultConfig, "configuration `file`")
	c.Flags().StringVar(&o.out, "out", "", "`file` to make, - for standard output")
	c.Flags().StringArrayVar(&o.recipients, "recipient", nil, "public `key` age1… that can open it, or a file with some (may be repeated)")
	c.Flags().BoolVar(&o.plain, "plaintext", false, "do not seal it: whoever reads it can be the relay")
	c.Flags().BoolVar(&o.withoutAudit, "without-audit", false, "leave the audit log out")
	outputFlag(c, &o.output)
	c.AddCommand(backupCheckCommand())
	return c
}

func (o *backupOptions) write(ctx context.Context, stdout io.Writer) (*backup.Manifest, error) {
	switch {
	case o.out == "":
		return nil, servercmd.Usage(errors.New("--out: name the file to make, or - for standard output"))
	case o.plain == (len(o.recipients) > 0):
		return nil, servercmd.Usage(errors.New("--recipient: the backup holds the relay's private keys: name the public key (age1…) of whoever may restore it, or say --plaintext"))
	}
	var to sealed.Recipients
	var err error
	if !o.plain {
		if to, err = sealed.ParseRecipients(o.recipients); err != nil {
			return nil, servercmd.Usage(fmt.Errorf("--recipient: %w", err))
		}
	}
	cfg, err := settings.Load(o.config)
	if err != nil {
		return nil, err
	}
	options := backupOf(cfg, o.config, !o.withoutAudit)
	fill := func(w io.Writer) (m *backup.Manifest, err error) {
		if o.plain {
			return backup.Write(ctx, w, options)
		}
		closed, err := to.Writer(w)
		if err != nil {
			return nil, fmt.Errorf("back up: %w", err)
		}
		if m, err = backup.Write(ctx, closed, options); err != nil {
			return nil, err
		}
		return m, closed.Close()
	}
	if o.out == "-" {
		return fill(stdout)
	}
	return wholeFile(o.out, fill)
}

// wholeFile makes the file when all is in it, and not before.
func wholeFile(path string, fill func(io.Writer) (*backup.Manifest, error)) (_ *backup.Manifest, err error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("--out: %s is there already; name another file", path)
	}
	draft, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // for its owner alone
	if err != nil {
		return nil, fmt.Errorf("back up: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(draft.Name())
		}
	}()
	m, err := fill(draft)
	if err = errors.Join(err, draft.Sync(), draft.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(draft.Name(), path); err != nil {
		return nil, fmt.Errorf("back up: %w", err)
	}
	return m, nil
}

// backupOf says what belongs to the relay of this configuration.
func backupOf(cfg *settings.Config, file string, log bool) backup.Options {
	o := backup.Options{
		Data: cfg.Data, Skip: []string{cfg.AdminSocket, filepath.Join(cfg.Audit.Dir)}, Config: map[string]string{"relay.yaml": file, "grants.yaml": cfg.Policy.Grants},
		Manifest: backup.Manifest{Version: version.String(), Taken: time.Now().UTC(), Name: cfg.Name, Instance: cfg.Instance},
	}
	for i, module := range cfg.Policy.Modules {
		o.Config["modules/"+strconv.Itoa(i+1)+"-"+filepath.Base(module)] = module
	}
	if cfg.IsShared() {
		o.LeftOut = append(o.LeftOut, backup.LeftOut{Name: "the state", Why: "it is in PostgreSQL: pg_dump"})
	} else {
		o.StateFile = strings.TrimPrefix(strings.TrimPrefix(cfg.State, "sqlite:"), "//")
	}
	if log {
		o.Audit = cfg.Audit.Dir
	} else {
		o.LeftOut = append(o.LeftOut, backup.LeftOut{Name: cfg.Audit.Dir, Why: "--without-audit"})
	}
	inData := func(path string) bool {
		rel, err := filepath.Rel(cfg.Data, path)
		return err == nil && filepath.IsLocal(rel)
	}
	for _, path := range append([]string{cfg.TLS.CertFile}, cfg.SecretFiles()...) {
		if !inData(path) {
			o.LeftOut = append(o.LeftOut, backup.LeftOut{Name: path, Why: "it lies outside the data folder"})
		}
	}
	o.LeftOut = slices.Compact(o.LeftOut)
	return o
}

func backupCheckCommand() *cobra.Command {
	var identity, output string
	c := &cobra.Command{
		Use: "check FILE", Short: "Read a backup to its end and check every file", Args: servercmd.OneArg,
		Long: `Read a backup, - for standard input, and check that it is whole and each file in
it is the one that was put there. Nothing is written.`,
		Example: "  iap-relay backup check relay.backup --identity key.txt",
		RunE: func(c *cobra.Command, args []string) error {
			return readBackup(c.InOrStdin(), args[0], identity, func(r io.Reader) error {
				m, err := backup.Read(c.Context(), r, "")
				if err != nil {
					return err
				}
				return printOr(c.OutOrStdout(), output, m, func(w io.Writer) { printBackup(w, "Whole", args[0], m) })
			})
		},
	}
	c.Flags().StringVar(&identity, "identity", "", "`file` with the private key that opens it")
	outputFlag(c, &output)
	return c
}

// readBackup opens a backup, which may be sealed.
func readBackup(stdin io.Reader, name, identity string, read func(io.Reader) error) error {
	from := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("read the backup: %w", err)
		}
		defer f.Close()
		from = f
	}
	begin := make([]byte, 32)
	n, err := io.ReadFull(from, begin)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("read the backup: %w", err)
	}
	begin = begin[:n]
	from = io.MultiReader(strings.NewReader(string(begin)), from)
	if !sealed.Is(begin) {
		return read(from)
	}
	if identity == "" {
		return servercmd.Usage(errors.New("--identity: the backup is sealed: name the file with the private key that opens it"))
	}
	keys, err := sealed.ReadIdentities(identity)
	if err != nil {
		return err
	}
	if from, err = keys.Reader(from); err != nil {
		return fmt.Errorf("open the backup: %w", err)
	}
	return read(from)
}

// printBackup says what is in a backup, and what is not.
func printBackup(w io.Writer, verdict, name string, m *backup.Manifest) {
	printFact(w, verdict, name)
	printFact(w, "Of", "relay "+m.Name+", as of "+m.Taken.Format(time.RFC3339))
	printFact(w, "Holds", screen.Count(len(m.Files), "file")+", "+screen.Count(int(m.Bytes), "byte"))
	for _, l := range m.LeftOut {
		printFact(w, "Not in it", l.Name+" ("+l.Why+")")
	}
}

// printFact keeps a long text in its column.
func printFact(w io.Writer, what, text string) {
	const column = 10
	lines := screen.Wrap(plaintext.Clean(text), screen.Width-column)
	fmt.Fprintf(w, "%-*s%s\n", column, what, strings.Join(lines, "\n"+strings.Repeat(" ", column)))
}
