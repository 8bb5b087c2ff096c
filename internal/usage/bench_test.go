package usage

import (
	"fmt"
	"testing"
	"time"
)

func BenchmarkAdd(b *testing.B) {
	c := newClock(noon)
	book := openBook(b, openStore(b, c), "r", c)
	entries := make([]Entry, 1000)
	for i := range entries {
		entries[i] = chat(fmt.Sprint("corp/", i%200), fmt.Sprint("model-", i/200))
	}
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			book.Add(entries[i%len(entries)])
		}
	})
	b.Run("two cores", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				book.Add(entries[i%len(entries)])
			}
		})
	})
}

// BenchmarkMonth is a flush and questions with 200 principals of 5 models each, over 30 days.
func BenchmarkMonth(b *testing.B) {
	c := newClock(noon.Add(-30 * day))
	s := openStore(b, c)
	book := openBook(b, s, "r", c)
	add := func() {
		for i := range 1000 {
			e := chat(fmt.Sprint("corp/", i%200), fmt.Sprint("model-", i/200))
			e.TTFT = time.Duration(i) * time.Millisecond
			book.Add(e)
		}
	}
	for range 30 * 6 { // every four hours
		add()
		flush(b, book)
		c.advance(4 * time.Hour)
	}
	b.Run("flush of 1000 series", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			add()
			b.StartTimer()
			flush(b, book)
		}
	})
	for name, q := range map[string]Query{
		"30 days by principal":      {From: c.now().Add(-30 * day), By: ByPrincipal, Top: 20},
		"30 days of one by model":   {From: c.now().Add(-30 * day), By: ByModel, Principal: "corp/7"},
		"7 days by the hour, model": {From: c.now().Add(-7 * day), By: ByModel, Per: Hour},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ask(b, book, q)
			}
		})
	}
}
