package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/audit/checkpoint"
	"iap/internal/audit/verify"
	"iap/internal/plaintext"
	"iap/internal/relaykey"
	"iap/internal/screen"
)

// maxKeyFile bounds what is read of keys and checkpoints.
const maxKeyFile = 4 << 20

// verifyDocument: audit verify.
type verifyDocument struct {
	Schema string `json:"schema"`
	*verify.Report
}

// checkedDocument: audit check-proof.
type checkedDocument struct {
	Schema  string                `json:"schema"`
	OK      bool                  `json:"ok"`
	Origin  string                `json:"origin"`
	Lines   int64                 `json:"lines"` // that the checkpoint covers
	Signed  time.Time             `json:"signed"`
	Key     string                `json:"key"`
	Records []verify.ProvenRecord `json:"records"`
}

// trust is which keys of the relay count.
type trust struct {
	keys  []string
	chain []string
}

func (t *trust) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&t.keys, "key", nil, "`key` of the relay that you trust: SHA256:..., base64, origin+hash+key, or a file with it: agent.yaml, or agent.pin once the relay's key has changed (may be repeated)")
	cmd.Flags().StringArrayVar(&t.chain, "chain", nil, "`file` of the relay's changes of key, relay.key.chain (may be repeated)")
}

// read finds the keys that are meant.
func (t *trust) read() (anchors []checkpoint.Anchor, links []relaykey.Link, err error) {
	for _, text := range t.keys {
		given, file := text, false
		if data, err := readBounded(text); err == nil {
			text, file = keyIn(data), true
		}
		anchor, err := checkpoint.ParseAnchor(text)
		switch {
		case err != nil && file:
			return nil, nil, fmt.Errorf("--key: no relay's key is in the file %s; agent.pin, agent.yaml and relay-keys.json hold one", given)
		case err != nil:
			return nil, nil, fmt.Errorf("--key: %s is no file, and %w", given, err)
		}
		anchors = append(anchors, anchor)
	}
	for _, path := range t.chain {
		data, err := readBounded(path)
		if err != nil {
			return nil, nil, fmt.Errorf("--chain: %w", err)
		}
		var more []relaykey.Link
		if err := json.Unmarshal(data, &more); err != nil || len(more) > checkpoint.MaxLinks {
			return nil, nil, fmt.Errorf("--chain: %s holds no changes of key", path)
		}
		links = append(links, more...)
	}
	return anchors, links, nil
}

// pinnedKey is the relay's key in an agent.yaml.
var pinnedKey = regexp.MustCompile(`(?m)^relay_key:[ "']*([A-Za-z0-9+/]{43}=)`)

// keyIn finds the key in a file: one of the log's keys, an agent's pin or its configuration, or a text.
func keyIn(data []byte) string {
	var file struct {
		Key []byte       `json:"key"`
		Pin relaykey.Pin `json:"pin"`
	}
	if json.Unmarshal(data, &file) == nil {
		for _, key := range [][]byte{file.Pin.Key, file.Key} {
			if len(key) > 0 {
				text, _ := json.Marshal(key) // bytes are a string in base64
				return strings.Trim(string(text), `"`)
			}
		}
	}
	if found := pinnedKey.FindSubmatch(data); found != nil {
		return string(found[1])
	}
	return string(data)
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(data) > maxKeyFile {
		err = fmt.Errorf("%s is too long", path)
	}
	return data, err
}

// Proofs are the commands that need no relay: they read an audit log's files.
func (c *Console) Proofs() []*cobra.Command {
	return []*cobra.Command{c.auditVerify(), c.auditProve(), c.auditCheckProof(), c.auditCheckBundle()}
}

func (c *Console) auditVerify() *cobra.Command {
	var t trust
	var files []string
	cmd := &cobra.Command{
		Use: "verify DIR", Short: "Prove that nothing in an audit log was changed", Args: c.args(1, 1),
		Long: `Read the folder of an audit log from its first line to its last, without the
relay, and say what it proves: up to which record its own checkpoints do, up to
which record each witness's does, and on what the rest stands. What was changed,
removed, added or moved is named by file, line and number of the record. Exit
status 1 if there is anything.

The log's own checkpoints are signed by the relay: whoever holds its key and its
disk can write another log. That is what witnesses are for: each agent keeps the
latest checkpoint, "iap-agent witness" prints it, and --checkpoint takes it.
Without --key the keys are taken from the folder, which proves less.`,
		Example: c.examples("audit verify /var/lib/iap-relay/audit --key SHA256:…", "audit verify ./audit --key agent.yaml --checkpoint held"),
		RunE: func(cmd *cobra.Command, args []string) error {
			anchors, links, err := t.read()
			if err != nil {
				return c.host.Usage(err)
			}
			o := verify.Options{Dir: args[0], Anchors: anchors, Links: links}
			for _, file := range files {
				note, err := readNote(cmd.InOrStdin(), file)
				if err != nil {
					return c.usage("--checkpoint: %w", err)
				}
				o.Witnesses = append(o.Witnesses, note)
			}
			report, err := verify.Run(cmd.Context(), o)
			if err != nil {
				return unreadable(err)
			}
			if err := c.show(cmd.OutOrStdout(), verifyDocument{Schema, report}, func(w io.Writer) { printReport(w, report) }); err != nil || report.OK {
				return err
			}
			first := report.Problems[0]
			return &admin.Error{Code: "audit_log_damaged", Message: "the audit log is not what was written: " + plaintext.Clean(first.String()), Hint: "keep the folder as it is; docs/audit.md says what each finding means"}
		},
	}
	t.flags(cmd)
	cmd.Flags().StringArrayVar(&files, "checkpoint", nil, "`file` with what a witness holds, - for standard input (may be repeated)")
	return cmd
}

func unreadable(err error) error {
	return &admin.Error{Code: "audit_log_unreadable", Message: plaintext.Clean(err.Error()), Hint: "name the folder with the files audit-….jsonl, and read it as somebody who may"}
}

func readNote(stdin io.Reader, file string) (verify.Note, error) {
	if file == "-" {
		data, err := io.ReadAll(io.LimitReader(stdin, maxKeyFile))
		return verify.Note{Name: "standard input", Data: data}, err
	}
	data, err := readBounded(file)
	return verify.Note{Name: file, Data: data}, err
}

func (c *Console) auditProve() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "prove ID --dir DIR", Short: "Make a proof that a record stands in the log", Args: c.args(1, 1),
		Long: `Print a proof, a JSON document, that a record stands in the audit log in DIR: ID
is its number (seq) or the id of a request, and then all of its records are
proven. Whoever trusts the relay's key can check it without the log and without
these programs; docs/audit.md shows how.`,
		Example: c.examples("audit prove 4711 --dir /var/lib/iap-relay/audit > proof.json"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if dir == "" {
				return c.usage("--dir: name the folder of the audit log")
			}
			proof, err := verify.Prove(cmd.Context(), dir, args[0])
			if err != nil {
				return &admin.Error{Code: "no_proof", Message: plaintext.Clean(err.Error()), Hint: "find the record with " + c.typed("audit query") + "; a new one has its checkpoint after ten seconds"}
			}
			data, err := json.MarshalIndent(proof, "", "  ")
			if err == nil {
				_, err = cmd.OutOrStdout().Write(append(data, '\n'))
			}
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "`folder` of the audit log")
	return cmd
}

func (c *Console) auditCheckProof() *cobra.Command {
	var t trust
	cmd := &cobra.Command{
		Use: "check-proof FILE", Short: "Check a proof of a record", Args: c.args(1, 1),
		Long: `Check a proof made by "audit prove", - for standard input, by the relay's key
that you trust, and print the records that it proves. Exit status 1 if it proves
nothing.`,
		Example: c.examples("audit check-proof proof.json --key SHA256:…"),
		RunE: func(cmd *cobra.Command, args []string) error {
			anchors, links, err := t.read()
			if err == nil && len(anchors) == 0 {
				err = errors.New("--key: name the relay's key that you trust: a proof that brings its own proves nothing")
			}
			if err != nil {
				return c.host.Usage(err)
			}
			note, err := readNote(cmd.InOrStdin(), args[0])
			if err != nil {
				return unreadable(err)
			}
			proof, err := verify.ReadProof(note.Data)
			var signed checkpoint.Signed
			if err == nil {
				proof.Keys.Chain = append(proof.Keys.Chain, links...)
				signed, err = proof.Check(anchors)
			}
			if err != nil {
				return &admin.Error{Code: "proof_fails", Message: plaintext.Clean(err.Error()), Hint: "have the proof made anew, and compare the key with the relay's operator"}
			}
			doc := checkedDocument{Schema, true, signed.Origin, signed.Size, signed.Time, relaykey.ID(signed.Key), proof.Records}
			return c.show(cmd.OutOrStdout(), doc, func(w io.Writer) {
				fmt.Fprintf(w, "Proven by a checkpoint of %s with %d lines, signed on %s by %s:\n", plaintext.Clean(doc.Origin), doc.Lines, doc.Signed.Format(time.RFC3339), doc.Key)
				for _, r := range doc.Records {
					fmt.Fprintf(w, "%s\n", plaintext.Clean(r.Line))
				}
			})
		},
	}
	t.flags(cmd)
	return cmd
}

// printReport says what a log proves, for a person.
func printReport(w io.Writer, r *verify.Report) {
	var b bytes.Buffer
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "WRONG  %s\n", p)
	}
	if r.More > 0 {
		fmt.Fprintf(&b, "       and %d more\n", r.More)
	}
	log := r.Origin
	if log == "" {
		log = "a log without checkpoints"
	}
	fmt.Fprintf(&b, "Read   %s: records %d to %d in %s\n", log, r.First, r.Last, screen.Count(r.Segments, "file"))
	if e := r.Expired; e != nil {
		fmt.Fprintf(&b, "Gone   records 1 to %d have expired by retention\n  %s\n", e.Through, signedBy(e.Time, e.Key))
	}
	switch {
	case r.Proven.Lines == 0:
		fmt.Fprintln(&b, "Proven by its own checkpoints: nothing")
	default:
		fmt.Fprintf(&b, "Proven up to record %d by %s of its own, the last\n  %s\n", r.Proven.Record, screen.Count(int(r.Checkpoints), "checkpoint"), signedBy(r.Proven.Time, r.Proven.Key))
	}
	for _, wit := range r.Witnesses {
		printWitnessed(&b, wit)
	}
	if r.Tail > 0 {
		fmt.Fprintf(&b, "Rest   %s behind that stand on their numbers alone: whoever writes the\n       files could have changed them without a trace here\n", screen.Count(int(r.Tail), "record"))
	}
	switch r.KeysFrom {
	case verify.KeysFolder:
		fmt.Fprintln(&b, "Key    taken from the folder itself: whoever could rewrite the log could put\n       another key there. Compare its fingerprint, or give --key")
	case verify.KeysNone:
		fmt.Fprintln(&b, "Key    none: no signature was verified. Give --key")
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "Note   %s\n", note)
	}
	for line := range strings.Lines(b.String()) {
		fmt.Fprintln(w, plaintext.Clean(strings.TrimSuffix(line, "\n")))
	}
}

func printWitnessed(w io.Writer, wit verify.Witness) {
	switch wit.Status {
	case verify.Holds:
		fmt.Fprintf(w, "Held   by %s up to record %d\n  %s\n", wit.Name, wit.Record, signedBy(wit.Time, wit.Key))
	case verify.Refuses:
		fmt.Fprintf(w, "REFUSED by %s: %s\n", wit.Name, wit.Message)
	default:
		fmt.Fprintf(w, "Witness %s tells nothing: %s\n", wit.Name, wit.Message)
	}
	if wit.Status == verify.Holds && wit.Message != "" {
		fmt.Fprintf(w, "       %s\n", wit.Message)
	}
}

func signedBy(at time.Time, key string) string {
	if key == "" {
		return at.Format(time.RFC3339) + ", signature not verified"
	}
	return at.Format(time.RFC3339) + " by " + key
}
