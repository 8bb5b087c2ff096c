package state_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"iap/internal/state"
)

func TestCopyBringsEverythingOverToAnotherKindOfStore(t *testing.T) {
	file, database := openAt(t, "sqlite::memory:", nil), openAt(t, postgres.URL(t), nil)
	defer file.Close()
	defer database.Close()
	expires := time.Now().Add(time.Hour).Round(0)
	for i := range 1200 {
		if _, err := file.Swap(t.Context(), fmt.Sprint("k/", i), 0, bytes.Repeat([]byte{byte(i)}, i), expires); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := state.Copy(t.Context(), file, database); err != nil || n != 1200 {
		t.Fatalf("copied %d, %v", n, err)
	}
	if err := state.CheckCopied(t.Context(), database); err != nil {
		t.Error(err)
	}
	for item, err := range state.All(t.Context(), file, "") {
		if err != nil {
			t.Fatal(err)
		}
		got, err := database.Get(t.Context(), item.Key)
		if err != nil || !bytes.Equal(got.Value, item.Value) || !got.Expires.Equal(item.Expires) {
			t.Errorf("%s: %d bytes until %v, %v", item.Key, len(got.Value), got.Expires, err)
		}
	}
	if _, err := state.Copy(t.Context(), file, database); err == nil {
		t.Error("a copy into a store that is not empty")
	}
}

// failing breaks off in the middle of a list.
type failing struct{ state.Store }

func (f failing) List(ctx context.Context, prefix, after string, limit int) ([]state.Item, error) {
	if after != "" {
		return nil, errors.New("the disk is gone")
	}
	return f.Store.List(ctx, prefix, after, 600)
}

func TestHalfACopyIsRefused(t *testing.T) {
	from, to, third := openAt(t, "sqlite::memory:", nil), openAt(t, "sqlite::memory:", nil), openAt(t, "sqlite::memory:", nil)
	defer from.Close()
	defer to.Close()
	defer third.Close()
	for i := range 700 {
		if _, err := from.Swap(t.Context(), fmt.Sprint(i), 0, nil, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := state.Copy(t.Context(), failing{from}, to); err == nil || n == 0 {
		t.Errorf("a copy that broke off: %d, %v", n, err)
	}
	if err := state.CheckCopied(t.Context(), to); !errors.Is(err, state.ErrHalfCopied) {
		t.Errorf("half a copy: %v", err)
	}
	if _, err := state.Copy(t.Context(), to, third); !errors.Is(err, state.ErrHalfCopied) {
		t.Errorf("a copy of half a copy: %v", err)
	}
}
