package rego

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"iap/policy"
)

func BenchmarkDecideCold(b *testing.B) {
	for _, n := range []int{20, 200, 2000} {
		b.Run(fmt.Sprintf("grants=%d", n), func(b *testing.B) {
			benchCold(b, manyGrants(n), chat(person("8a7f3c", "everybody", "engineering", "berlin", fmt.Sprintf("team-%d", n/2), "chess"), "phi3", "phi3:latest"))
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

// BenchmarkDecideColdGrantPerResource has everybody named by every grant, each
// for a resource of its own.
func BenchmarkDecideColdGrantPerResource(b *testing.B) {
	for _, n := range []int{20, 200, 2000} {
		b.Run(fmt.Sprintf("grants=%d", n), func(b *testing.B) {
			var text strings.Builder
			text.WriteString("grants:\n")
			for i := range n {
				fmt.Fprintf(&text, "  - {name: g%d, to: [\"any:corp\"], resources: [r%d], models: [\"phi3:*\"], actions: [chat]}\n", i, i)
			}
			benchCold(b, text.String(), chat(person("8a7f3c", "chess"), fmt.Sprintf("r%d", n/2), "phi3:latest"))
		})
	}
}

// BenchmarkDecideColdAllGrantsMatch is the worst case: no index can help where
// every grant names the same principal and the same resource.
func BenchmarkDecideColdAllGrantsMatch(b *testing.B) {
	for _, n := range []int{20, 200} {
		b.Run(fmt.Sprintf("grants=%d", n), func(b *testing.B) {
			p := person("8a7f3c")
			for i := range n {
				p.Groups = append(p.Groups, fmt.Sprintf("team-%d", i))
			}
			benchCold(b, manyGrants(n), chat(p, "phi3", "phi3:latest"))
		})
	}
}

// benchCold asks the policy itself, past the cache.
func benchCold(b *testing.B, grants string, in policy.Input) {
	e := newTestEngine(b, grants, nil)
	l, q := e.current.Load(), newQuestion(in)
	b.ReportAllocs()
	for b.Loop() {
		if d, ok := e.evaluate(context.Background(), l, q); !ok || !d.Allow {
			b.Fatal(d)
		}
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
