package verify

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"iap/internal/audit"
)

// people writes a log about two people and what an administrator did to one of them.
func people(t *testing.T, r *relay, dir string) {
	t.Helper()
	l, err := audit.Open(r.options(t, dir))
	must(t, err)
	for i := range 60 {
		e := audit.Event{Kind: audit.KindDecision, Decision: audit.Allow, Principal: "corp/bob", Path: fmt.Sprintf("/v1/%d", i)}
		switch {
		case i%3 == 0:
			e.Principal = "corp/bobby"
		case i == 31:
			e = audit.Event{Kind: audit.KindAdmin, Principal: "corp/root", Detail: map[string]string{"target": "corp/bob"}}
		}
		must(t, l.Record(t.Context(), e))
	}
	must(t, l.Close())
}

func bundled(t *testing.T, dir string, s Subject) ([]byte, BundleEnd) {
	t.Helper()
	var b bytes.Buffer
	end, err := WriteBundle(t.Context(), &b, dir, s, time.Now())
	must(t, err)
	return b.Bytes(), end
}

func TestBundleHoldsWhatConcernsSomebodyAndProvesIt(t *testing.T) {
	dir, r := t.TempDir(), newRelay()
	people(t, r, dir)
	bob := Subject{Principal: "corp/bob"}
	data, end := bundled(t, dir, bob)
	if end.Records != 40 || end.Unsigned != 0 || bytes.Contains(data, []byte("bobby")) || !bytes.Contains(data, []byte("corp/root")) {
		t.Errorf("%+v", end)
	}
	b, err := CheckBundle(t.Context(), bytes.NewReader(data), r.anchor())
	must(t, err)
	must(t, b.Compare(t.Context(), bytes.NewReader(data), dir))
	if b.End != end || b.Missing != 0 || b.Head.Subject != bob || b.Signed.Origin != origin {
		t.Errorf("%+v", b)
	}
	if _, err := CheckBundle(t.Context(), bytes.NewReader(data), newRelay().anchor()); err == nil {
		t.Error("another relay's key proves it")
	}
	never, _ := bundled(t, dir, Subject{Principal: "corp/bob", Until: time.Unix(1, 0)})
	if b, err := CheckBundle(t.Context(), bytes.NewReader(never), r.anchor()); err != nil || b.End.Records != 0 {
		t.Errorf("nothing: %+v, %v", b, err)
	}
	// A bundle that leaves records out proves those it has; the log tells what is missing.
	lines := strings.SplitAfter(string(data), "\n")
	for _, left := range [][2]int{{1, 3}, {20, 21}, {38, 41}} {
		fewer := strings.Join(lines[:left[0]], "") + strings.Join(lines[left[1]:41], "") + fmt.Sprintf("{\"records\":%d,\"unsigned\":0}\n", 40-left[1]+left[0])
		b, err := CheckBundle(t.Context(), strings.NewReader(fewer), r.anchor())
		must(t, err)
		must(t, b.Compare(t.Context(), strings.NewReader(fewer), dir))
		if b.Missing != int64(left[1]-left[0]) {
			t.Errorf("lines %v left out: %d are missing", left, b.Missing)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Compare(ctx, bytes.NewReader(data), dir); err == nil {
		t.Error("a comparison that was cancelled")
	}
}

// TestWhatIsNotSignedYetIsNotInTheBundle, and is counted.
func TestWhatIsNotSignedYetIsNotInTheBundle(t *testing.T) {
	dir, r := t.TempDir(), newRelay()
	people(t, r, dir)
	o := r.options(t, dir)
	o.Keys = func() (ed25519.PrivateKey, [][]byte, error) { return nil, nil, errors.New("the key is away") }
	l, err := audit.Open(o)
	must(t, err)
	must(t, l.Record(t.Context(), audit.Event{Kind: audit.KindLogin, Principal: "corp/bob"}))
	must(t, l.Close())
	if _, end := bundled(t, dir, Subject{Principal: "corp/bob"}); end.Records != 40 || end.Unsigned != 1 {
		t.Errorf("%+v", end)
	}
}

func TestEveryChangeOfABundleIsFound(t *testing.T) {
	dir, r := t.TempDir(), newRelay()
	people(t, r, dir)
	data, _ := bundled(t, dir, Subject{Principal: "corp/bob"})
	text := string(data)
	lines := strings.SplitAfter(text, "\n")
	lines = lines[:len(lines)-1]
	join := func(all ...string) string { return strings.Join(all, "") }
	for name, changed := range map[string]string{
		"cut off":              join(lines[:20]...),
		"cut in a line":        text[:len(text)/2],
		"a record left out":    join(lines[:5]...) + join(lines[6:]...),
		"a record twice":       join(lines[:6]...) + join(lines[5:]...),
		"two swapped":          join(lines[:5]...) + lines[6] + lines[5] + join(lines[7:]...),
		"another path":         strings.Replace(text, "/v1/10", "/v1/99", 1),
		"another person":       strings.Replace(text, `\"corp/bob\"`, `\"corp/eve\"`, 1),
		"of another person":    strings.Replace(text, `"principal":"corp/bob"}`, `"principal":"corp/eve"}`, 1),
		"another origin":       strings.Replace(text, origin, "elsewhere/audit/x", 1),
		"more behind its end":  text + lines[3],
		"two ends":             text + lines[len(lines)-1],
		"no head":              join(lines[1:]...),
		"another schema":       strings.Replace(text, BundleSchema, "iap-audit-bundle/v9", 1),
		"a field more":         strings.Replace(text, `{"index"`, `{"more":1,"index"`, 1),
		"an index more":        strings.Replace(text, `{"index":`, `{"index":1`, 1),
		"a number more":        strings.Replace(text, `{"records":40`, `{"records":41`, 1),
		"nothing":              "",
		"a line without bound": strings.Repeat("x", maxBundleLine+1),
	} {
		if changed == text {
			t.Errorf("%s: nothing was changed", name)
		}
		if _, err := CheckBundle(t.Context(), strings.NewReader(changed), r.anchor()); err == nil || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
