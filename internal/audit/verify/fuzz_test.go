package verify

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"iap/internal/audit"
)

// FuzzVerify gives the verifier files that an attacker has made: what it calls proven is what was signed.
func FuzzVerify(f *testing.F) {
	dir, relay := f.TempDir(), newRelay()
	relay.o.SegmentBytes = 1 << 20
	relay.run(f, dir, "a", 2)
	segment := files(f, dir, "*.jsonl")[0]
	lines, hashes, points := read(f, segment), read(f, segment+audit.HashSuffix), read(f, segment+audit.CheckpointSuffix)
	f.Add(lines, hashes, points, []byte(nil))
	f.Add(bytes.Replace(lines, []byte("phi3"), []byte("phi4"), 1), hashes, points, []byte(nil))
	f.Add(lines[:len(lines)-7], hashes[:77], points, lastNote(f, dir).Data)
	f.Add([]byte("\n\n"), []byte("iap-audit-hash-1"), []byte(`{"checkpoint":""}`+"\n"), []byte(`{"subtrees":[],"head":""}`))
	f.Fuzz(func(t *testing.T, l, h, p, expired []byte) {
		dir := t.TempDir()
		base := filepath.Join(dir, filepath.Base(segment))
		write(t, base, l)
		write(t, base+audit.HashSuffix, h)
		write(t, base+audit.CheckpointSuffix, p)
		if len(expired) > 0 {
			write(t, filepath.Join(dir, audit.ExpiredFile), expired)
		}
		r := verified(t, Options{Dir: dir, Anchors: relay.anchor(), Witnesses: []Note{{Name: "w", Data: expired}}})
		if r.Proven.Lines > 0 && !bytes.HasPrefix(l, lines) {
			t.Errorf("%d lines are proven of %q", r.Proven.Lines, l)
		}
	})
}

// FuzzProof checks proofs that an attacker has made: only lines that were signed pass.
func FuzzProof(f *testing.F) {
	dir, relay := f.TempDir(), newRelay()
	relay.run(f, dir, "a", 3)
	p, err := Prove(f.Context(), dir, "a-1")
	if err != nil {
		f.Fatal(err)
	}
	data, err := json.Marshal(p)
	if err != nil {
		f.Fatal(err)
	}
	all := string(read(f, files(f, dir, "*.jsonl")[0]))
	f.Add(data)
	f.Add(bytes.Replace(data, []byte("phi3"), []byte("phi4"), 1))
	f.Add([]byte(`{"schema":"iap-audit-proof/v1","records":[{"index":-1,"hashes":[]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ReadProof(data)
		if err != nil {
			return
		}
		if _, err := p.Check(relay.anchor()); err != nil {
			return
		}
		for _, r := range p.Records {
			if !strings.Contains(all, r.Line+"\n") {
				t.Errorf("proven: %q", r.Line)
			}
		}
	})
}
