package agent

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"iap/internal/audit/checkpoint"
	"iap/internal/audit/tree"
	"iap/internal/relaykey"
	"iap/tunnel"
)

// shown is a checkpoint of a log with size lines, the last of which is word.
func shown(t *testing.T, key ed25519.PrivateKey, origin string, size int, word string, at time.Time) tunnel.Checkpoint {
	t.Helper()
	var r tree.Range
	for i := range size - 1 {
		r.Add(tree.Leaf(fmt.Append(nil, i)), nil)
	}
	r.Add(tree.Leaf([]byte(word)), nil)
	s, err := checkpoint.Sign(checkpoint.Checkpoint{Origin: origin, Size: int64(size), Root: r.Root(), Time: at}, key)
	if err != nil {
		t.Fatal(err)
	}
	return tunnel.Checkpoint{Note: string(s.Note)}
}

func TestWitnessKeepsWhatExtendsAndTheProofOfWhatDoesNot(t *testing.T) {
	const origin = "relay.example.com/audit/main"
	public, key, _ := ed25519.GenerateKey(rand.Reader) // never fails
	_, other, _ := ed25519.GenerateKey(rand.Reader)
	file := filepath.Join(t.TempDir(), "agent.key")
	p := &pin{now: relaykey.Pin{Key: public}}
	open := func() *witness {
		w, err := openWitness(&Config{KeyFile: file}, p, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	now := time.Now()
	w := open()
	if a := w.take(shown(t, other, origin, 1, "0", now)); a.Held != "" || len(w.all()) != 0 {
		t.Errorf("a foreign key's checkpoint is held: %+v", a)
	}
	one := shown(t, key, origin, 1, "0", now)
	if a := w.take(one); a.Held != one.Note || a.Conflict {
		t.Errorf("the first: %+v", a)
	}
	two := shown(t, key, origin, 2, "1", now.Add(time.Second))
	if a := w.take(two); a.Held != one.Note || a.Conflict {
		t.Errorf("without a proof: %+v", a)
	}
	leaf := tree.Leaf([]byte("1"))
	two.Proof = leaf[:]
	if a := w.take(two); a.Held != two.Note || a.Conflict {
		t.Errorf("with a proof: %+v", a)
	}
	if info, err := os.Stat(w.file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	w = open() // after a restart
	rewritten := shown(t, key, origin, 2, "another", now.Add(2*time.Second))
	for range 2 {
		if a := w.take(rewritten); a.Held != two.Note || !a.Conflict {
			t.Errorf("rewritten: %+v", a)
		}
	}
	w = open()
	if logs := w.all(); len(logs) != 1 || logs[0].Checkpoint != two.Note || logs[0].Refused == nil || logs[0].Refused.Checkpoint != rewritten.Note || logs[0].Refused.Held != two.Note {
		t.Errorf("the evidence: %+v", logs)
	}
	next := shown(t, other, origin, 2, "1", now.Add(3*time.Second))
	next.Chain = [][]byte{relaykey.Sign(key, other, 1, now).Encode()}
	if a := w.take(next); a.Held != next.Note {
		t.Errorf("by the relay's next key: %+v", a)
	}
	for i := range 2 * maxWitnessed {
		w.take(shown(t, key, fmt.Sprint("relay.example.com/audit/", i), 1, "0", now))
	}
	if n := len(w.all()); n != maxWitnessed {
		t.Errorf("%d logs are held", n)
	}
}
