package relaykey

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newKey() ed25519.PrivateKey {
	_, key, _ := ed25519.GenerateKey(rand.Reader) // crypto/rand never fails
	return key
}

var epoch = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// history makes n keys after a first one, each named by the one before.
func history(n int) (keys []ed25519.PrivateKey, chain [][]byte) {
	keys = append(keys, newKey())
	for i := 1; i <= n; i++ {
		keys = append(keys, newKey())
		chain = append(chain, Sign(keys[i-1], keys[i], int64(i), epoch).Encode())
	}
	return keys, chain
}

func TestPinFollowsTheChainFromTheKeyItHolds(t *testing.T) {
	keys, chain := history(MaxChain)
	for from := range keys {
		pin := Pin{Key: public(keys[from]), Number: int64(from)}
		for to := from; to < len(keys); to++ {
			got, err := pin.Follow(public(keys[to]), chain)
			must(t, err)
			if !bytes.Equal(got.Key, public(keys[to])) || got.Number != int64(to) || (got.Next == nil) != (to == MaxChain) || len(got.Past) != to-from {
				t.Errorf("from %d to %d: %+v", from, to, got)
			}
			if _, err := got.Follow(public(keys[from]), chain); to > from && !errors.Is(err, ErrRetired) {
				t.Errorf("back from %d to %d: %v", to, from, err)
			}
		}
	}
	heard, err := Pin{Key: public(keys[0])}.Follow(public(keys[0]), chain[:1])
	must(t, err)
	if moved, err := heard.Follow(public(keys[1]), nil); err != nil || moved.Number != 1 {
		t.Errorf("a key that was announced needs no chain later: %v", err)
	}
}

func TestPinRefusesWhatItsKeyDidNotSign(t *testing.T) {
	keys, chain := history(3)
	evil := newKey()
	forged := Sign(keys[0], evil, 1, epoch)
	forged.Signature = ed25519.Sign(evil, forged.signed(successorLabel))
	unproven := Sign(keys[0], evil, 1, epoch)
	unproven.Proof = unproven.Signature
	swapped := Sign(keys[0], keys[1], 1, epoch)
	swapped.New = public(evil)
	later := Sign(keys[0], evil, 1, epoch)
	later.From = later.From.Add(time.Hour)
	long, longChain := history(MaxChain + 1)
	heard, err := Pin{Key: public(keys[0])}.Follow(public(keys[0]), chain)
	must(t, err)
	for name, c := range map[string]struct {
		pin   Pin
		shown ed25519.PrivateKey
		chain [][]byte
		want  error
	}{
		"no statement":               {Pin{Key: public(keys[0])}, evil, nil, ErrOther},
		"another relay's chain":      {Pin{Key: public(keys[0])}, long[1], longChain[:1], ErrOther},
		"wrong signature":            {Pin{Key: public(keys[0])}, evil, [][]byte{forged.Encode()}, ErrForged},
		"a key that is not its own":  {Pin{Key: public(keys[0])}, evil, [][]byte{unproven.Encode()}, ErrForged},
		"another key put in":         {Pin{Key: public(keys[0])}, evil, [][]byte{swapped.Encode()}, ErrForged},
		"another time put in":        {Pin{Key: public(keys[0])}, evil, [][]byte{later.Encode()}, ErrForged},
		"no JSON":                    {Pin{Key: public(keys[0])}, evil, [][]byte{[]byte("{")}, ErrForged},
		"too long a statement":       {Pin{Key: public(keys[0])}, evil, [][]byte{bytes.Repeat([]byte(" "), maxLink+1)}, ErrForged},
		"a gap":                      {Pin{Key: public(keys[0])}, keys[3], [][]byte{chain[0], chain[2]}, ErrOther},
		"a key from before":          {mustFollow(t, Pin{Key: public(keys[0])}, keys[2], chain), keys[1], chain, ErrRetired},
		"its own first key":          {mustFollow(t, Pin{Key: public(keys[0])}, keys[2], chain), keys[0], chain, ErrRetired},
		"a circle back":              {mustFollow(t, Pin{Key: public(keys[0])}, keys[1], chain[:1]), keys[0], [][]byte{Sign(keys[1], keys[0], 2, epoch).Encode()}, ErrRetired},
		"a number left out":          {Pin{Key: public(keys[1]), Number: 1}, keys[2], [][]byte{Sign(keys[1], keys[2], 3, epoch).Encode()}, ErrOther},
		"two successors":             {Pin{Key: public(keys[0])}, keys[1], [][]byte{chain[0], Sign(keys[0], evil, 1, epoch).Encode()}, ErrFork},
		"another successor than was": {heard, evil, [][]byte{Sign(keys[0], evil, 1, epoch).Encode()}, ErrFork},
		"a chain too long":           {Pin{Key: public(long[0])}, long[len(long)-1], longChain, ErrTooLong},
	} {
		got, err := c.pin.Follow(public(c.shown), c.chain)
		if !errors.Is(err, c.want) || !got.Equal(c.pin) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func mustFollow(t *testing.T, p Pin, shown ed25519.PrivateKey, chain [][]byte) Pin {
	t.Helper()
	p, err := p.Follow(public(shown), chain)
	must(t, err)
	return p
}

func TestOutstandingJoinTokenFollowsItsRelay(t *testing.T) {
	keys, chain := history(2)
	hash := sha256.Sum256(public(keys[0]))
	for _, k := range keys {
		if pin, err := FollowHash(hash[:], public(k), chain); err != nil || !bytes.Equal(pin.Key, public(k)) {
			t.Errorf("%v", err)
		}
	}
	if _, err := FollowHash(hash[:], public(newKey()), chain); err == nil {
		t.Error("a foreign key was believed")
	}
	if _, err := FollowHash(hash[:], public(keys[2]), chain[1:]); !errors.Is(err, ErrOther) {
		t.Errorf("without its first link: %v", err)
	}
}

// files keeps a ring on the real disk; fail stops it right before the write of that number, as a crash would.
type files struct {
	writes, fail int
	after        bool // right after it instead
}

var errCrash = errors.New("crash")

func (f *files) step(do func() error) error {
	f.writes++
	if f.writes == f.fail && !f.after {
		return errCrash
	}
	err := do()
	if f.writes == f.fail && err == nil {
		return errCrash
	}
	return err
}

func (f *files) files() Files {
	return Files{
		NewKey: func() (ed25519.PrivateKey, error) { return newKey(), nil },
		LoadKey: func(path string) (ed25519.PrivateKey, error) {
			b, err := os.ReadFile(path)
			return ed25519.PrivateKey(b), err
		},
		SaveKey: func(path string, key ed25519.PrivateKey) error {
			return f.step(func() error { return os.WriteFile(path, key, 0o600) })
		},
		Rename: func(from, to string) error { return f.step(func() error { return os.Rename(from, to) }) },
		Write: func(path string, data []byte) error {
			return f.step(func() error { return os.WriteFile(path, data, 0o600) })
		},
	}
}

// TestRingSurvivesACrashAtEveryWrite stops a rotation before and after each of its writes. Whoever pinned the first key
// believes the relay that comes up again, and the rotation can be finished.
func TestRingSurvivesACrashAtEveryWrite(t *testing.T) {
	for fail := 1; fail <= 3; fail++ {
		for _, after := range []bool{false, true} {
			dir := t.TempDir()
			f := &files{}
			r, err := Open(dir, f.files())
			must(t, err)
			pin := Pin{Key: r.Public()}
			f.writes, f.fail, f.after = 0, fail, after
			_, err = r.Prepare(epoch)
			if err == nil {
				_, err = r.Activate(epoch)
			}
			if !errors.Is(err, errCrash) {
				t.Fatalf("write %d: %v", fail, err)
			}
			f.fail = 0
			r, err = Open(dir, f.files())
			must(t, err)
			key, chain := r.Shown()
			if pin, err = pin.Follow(public(key), chain); err != nil {
				t.Errorf("write %d, after %v: %v", fail, after, err)
			}
			if _, err := r.Prepare(epoch); err != nil && !errors.Is(err, ErrPrepared) {
				t.Error(err)
			}
			if done, err := r.Activate(epoch); err != nil || !done {
				t.Errorf("write %d, after %v: not finished: %v", fail, after, err)
			}
			key, chain = r.Shown()
			if _, err := pin.Follow(public(key), chain); err != nil {
				t.Errorf("write %d, after %v: %v", fail, after, err)
			}
		}
	}
}

func TestRingKeepsItsTime(t *testing.T) {
	dir := t.TempDir()
	r, err := Open(dir, (&files{}).files())
	must(t, err)
	first := r.Public()
	link, err := r.Prepare(epoch.Add(time.Hour))
	must(t, err)
	if again, err := r.Prepare(epoch); !errors.Is(err, ErrPrepared) || again.Number != link.Number || !bytes.Equal(again.New, link.New) {
		t.Errorf("a second preparation: %v", err)
	}
	if done, err := r.Activate(epoch.Add(time.Hour - time.Second)); done || err != nil || !r.Public().Equal(first) {
		t.Errorf("too early: %v, %v", done, err)
	}
	r, err = Open(dir, (&files{}).files()) // a restart in between
	must(t, err)
	if pending, ok := r.Pending(); !ok || !bytes.Equal(pending.New, link.New) {
		t.Error("the prepared key was forgotten")
	}
	if done, err := r.Activate(epoch.Add(time.Hour)); !done || err != nil || bytes.Equal(r.Public(), first) {
		t.Errorf("%v, %v", done, err)
	}
}

func TestRingShowsNoMoreThanCanBeFollowed(t *testing.T) {
	r, err := Open(t.TempDir(), (&files{}).files())
	must(t, err)
	pin := Pin{Key: r.Public()}
	for range 3 * MaxChain {
		_, err := r.Prepare(epoch)
		must(t, err)
		_, err = r.Activate(epoch)
		must(t, err)
		key, chain := r.Shown()
		if len(chain) > MaxChain {
			t.Fatalf("%d links", len(chain))
		}
		pin, err = pin.Follow(public(key), chain)
		must(t, err)
		if len(pin.Past) > maxPast {
			t.Fatalf("%d keys remembered", len(pin.Past))
		}
	}
}

func TestRingRefusesFilesThatDoNotBelongTogether(t *testing.T) {
	dir := t.TempDir()
	r, err := Open(dir, (&files{}).files())
	must(t, err)
	old, err := os.ReadFile(filepath.Join(dir, keyFile))
	must(t, err)
	for range 2 {
		_, err = r.Prepare(epoch)
		must(t, err)
		_, err = r.Activate(epoch)
		must(t, err)
	}
	must(t, os.WriteFile(filepath.Join(dir, keyFile), old, 0o600))
	if _, err := Open(dir, (&files{}).files()); err == nil {
		t.Error("an old key beside a newer chain was taken")
	}
	must(t, os.WriteFile(filepath.Join(dir, chainFile), []byte("[{"), 0o600))
	if _, err := Open(dir, (&files{}).files()); err == nil {
		t.Error("a damaged chain was taken")
	}
}

func FuzzFollow(f *testing.F) {
	keys, chain := history(2)
	f.Add(chain[0], chain[1], []byte(public(keys[2])))
	f.Add([]byte("{}"), []byte(nil), []byte(public(keys[0])))
	f.Fuzz(func(t *testing.T, a, b, shown []byte) {
		pin := Pin{Key: public(keys[0])}
		moved, err := pin.Follow(shown, [][]byte{a, b})
		if err != nil {
			return
		}
		for _, k := range keys {
			if bytes.Equal(moved.Key, public(k)) {
				return
			}
		}
		t.Fatalf("moved to %x", moved.Key)
	})
}
