package rego

import (
	"context"
	"fmt"
	"testing"
)

func BenchmarkDecideCold(b *testing.B) {
	for _, n := range []int{20, 200, 2000} {
		b.Run(fmt.Sprintf("grants=%d", n), func(b *testing.B) {
			e := newTestEngine(b, manyGrants(n), nil)
			in := chat(person("8a7f3c", "everybody", "engineering", "berlin", fmt.Sprintf("team-%d", n/2), "chess"), "phi3", "phi3:latest")
			l, q := e.current.Load(), newQuestion(in)
			b.ReportAllocs()
			for b.Loop() {
				if d, ok := e.evaluate(context.Background(), l, q); !ok || !d.Allow {
					b.Fatal(d)
				}
			}
		})
	}
}

func BenchmarkDecideCached(b *testing.B) {
	e := newTestEngine(b, manyGrants(200), nil)
	in := chat(person("8a7f3c", "everybody", "engineering", "berlin", "team-100", "chess"), "phi3", "phi3:latest")
	b.ReportAllocs()
	for b.Loop() {
		if d := e.Decide(context.Background(), in); !d.Allow {
			b.Fatal(d)
		}
	}
}

// BenchmarkDecideColdAllGrantsNameOne is the worst case: the index cannot help
// where every grant names the same principal.
func BenchmarkDecideColdAllGrantsNameOne(b *testing.B) {
	for _, n := range []int{20, 200} {
		b.Run(fmt.Sprintf("grants=%d", n), func(b *testing.B) {
			e := newTestEngine(b, manyGrants(n), nil)
			p := person("8a7f3c")
			for i := range n {
				p.Groups = append(p.Groups, fmt.Sprintf("team-%d", i))
			}
			l, q := e.current.Load(), newQuestion(chat(p, "phi3", "phi3:latest"))
			for b.Loop() {
				if d, ok := e.evaluate(context.Background(), l, q); !ok || !d.Allow {
					b.Fatal(d)
				}
			}
		})
	}
}

func BenchmarkReload(b *testing.B) {
	for _, n := range []int{20, 2000} {
		b.Run(fmt.Sprintf("grants=%d", n), func(b *testing.B) {
			e := newTestEngine(b, manyGrants(n), nil)
			for b.Loop() {
				if err := e.Reload(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
