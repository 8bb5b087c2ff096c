package keyfile

import (
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"iap/auth"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newFile(t *testing.T) (File, ed25519.PrivateKey) {
	t.Helper()
	f := File(filepath.Join(t.TempDir(), "agent.key"))
	key, err := auth.NewKey()
	must(t, err)
	must(t, auth.SaveKey(string(f), key))
	return f, key
}

func TestOldKeyStaysUntilTheNewOneIsConfirmed(t *testing.T) {
	f, old := newFile(t)
	next, err := f.Prepare(t.Context())
	must(t, err)
	again, err := f.Prepare(t.Context()) // after a crash, or by another process
	must(t, err)
	keys, err := f.Read()
	must(t, err)
	if !again.Equal(next) || !keys.Current.Equal(old) || !keys.Next.Equal(next) {
		t.Fatal("a prepared key was lost")
	}
	if info, err := os.Stat(string(f) + nextSuffix); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v", err)
	}
	must(t, f.Promote(t.Context(), next))
	must(t, f.Promote(t.Context(), next)) // twice is once
	keys, err = f.Read()
	must(t, err)
	if !keys.Current.Equal(next) || keys.Next != nil {
		t.Error("not promoted")
	}
	if err := f.Promote(t.Context(), old); err == nil {
		t.Error("a key that is not the successor was put in use")
	}
}

// TestSlowProcessPromotesNoUnconfirmedKey: one process confirmed a key and is about to promote it, another has gone a
// rotation further meanwhile.
func TestSlowProcessPromotesNoUnconfirmedKey(t *testing.T) {
	f, _ := newFile(t)
	first, err := f.Prepare(t.Context())
	must(t, err)
	must(t, f.Promote(t.Context(), first))
	second, err := f.Prepare(t.Context())
	must(t, err)
	must(t, f.Promote(t.Context(), first))
	keys, err := f.Read()
	must(t, err)
	if !keys.Current.Equal(first) || !keys.Next.Equal(second) {
		t.Error("a key that nobody confirmed is in use")
	}
}

func TestManyRotatorsAgreeOnOneKey(t *testing.T) {
	f, _ := newFile(t)
	var group sync.WaitGroup
	keys := make([]ed25519.PrivateKey, 16)
	for i := range keys {
		group.Go(func() {
			key, err := f.Prepare(context.Background())
			if err == nil {
				err = f.Promote(context.Background(), key)
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				keys[i] = nil
				return
			}
			keys[i] = key
		})
	}
	group.Wait()
	now, err := f.Read()
	must(t, err)
	found := false
	for _, k := range keys {
		found = found || k != nil && k.Equal(now.Current)
	}
	if !found {
		t.Error("the key in use is nobody's")
	}
}

func TestSecondProcessWithTheSameKeyIsTold(t *testing.T) {
	f, _ := newFile(t)
	release, err := f.Claim()
	must(t, err)
	if _, err := f.Claim(); !errors.Is(err, ErrTaken) {
		t.Errorf("%v", err)
	}
	release()
	release, err = f.Claim()
	must(t, err)
	release()
}
