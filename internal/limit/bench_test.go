package limit_test

import (
	"net/http"
	"testing"
	"time"

	"iap/internal/limit"
)

// everything is a request under all kinds of limits.
func everything() limit.Ask {
	rule := engineers(perDay(1e14))
	rule.Requests = []limit.Rate{perMinute(1e12), {N: 1e13, Per: time.Hour}}
	rule.Concurrent = 1e6
	return limit.Ask{Rules: []limit.Rule{rule}, Input: 900, Output: 1024}
}

func warm(b *testing.B) *limit.Book {
	b.Helper()
	c := newClock()
	o := limit.Options{Store: file(b, c), Holder: "relay-1"} // the real clock, as in a relay
	bk := bookWith(b, o)
	for range 1000 {
		reserve(b, bk, everything()).Settle(900, 200)
	}
	return bk
}

func BenchmarkReserveAndSettle(b *testing.B) {
	bk := warm(b)
	ask := everything()
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		r, err := bk.Reserve(ctx, ask)
		if err != nil {
			b.Fatal(err)
		}
		r.Settle(900, 200)
	}
}

func BenchmarkReserveAndSettleWithHeader(b *testing.B) {
	bk := warm(b)
	ask := everything()
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		r, err := bk.Reserve(ctx, ask)
		if err != nil {
			b.Fatal(err)
		}
		r.Header(http.Header{})
		r.Settle(900, 200)
	}
}

func BenchmarkUse(b *testing.B) {
	r := reserve(b, warm(b), everything())
	defer r.Settle(900, 200)
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Use(900, 200); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRefusal(b *testing.B) {
	bk := warm(b)
	ask := everything()
	ask.Rules[0].Grant = "other"
	ask.Rules[0].Requests[0].N = 1
	defer reserve(b, bk, ask).Settle(1, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := bk.Reserve(b.Context(), ask); err == nil {
			b.Fatal("not refused")
		}
	}
}
