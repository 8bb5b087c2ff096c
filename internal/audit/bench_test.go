package audit

import (
	"context"
	"fmt"
	"testing"
)

func benchmarkEvent() Event {
	return Event{
		Kind: KindDecision, Request: "01JD8Z5K3V7Q2N4M6P8R0T2W4Y", Session: "5f2c7a9e1b3d4f6a8c0e2d4b6f8a0c2e",
		Principal: "corp/8a7f3c", Issuer: "corp", Agent: "gpu-1", Resource: "phi3", Action: "chat", Model: "phi3:latest",
		Grant: "engineers-chat", Via: "tunnel", Source: "192.0.2.17:51234", Binding: "nonce", Method: "POST",
		Path: "/v1/chat/completions", Decision: Allow, Reason: "allowed", Revision: "9f8e7d6c5b4a", BytesIn: 1234,
		Detail: map[string]string{"stream": "true", "max_tokens": "512"},
	}
}

func BenchmarkEncode(b *testing.B) {
	e := benchmarkEvent()
	var n line
	b.ReportAllocs()
	for b.Loop() {
		n.encode(&e)
	}
	b.SetBytes(int64(len(n.buf) - headroom))
}

// BenchmarkRecord writes a decision and its outcome, in turn and by many at once; without checkpoints and with them.
func BenchmarkRecord(b *testing.B) {
	for name, o := range map[string]Options{
		"write": {}, "write signed": signing(Options{}), "group": {Sync: SyncGroup},
	} {
		b.Run(name, func(b *testing.B) {
			o.Dir = b.TempDir()
			l, err := Open(o)
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			ctx := context.Background()
			pair := func(e Event) {
				e.Kind = KindDecision
				if err := l.Record(ctx, e); err != nil {
					b.Fatal(err)
				}
				e.Kind = KindOutcome
				if err := l.Record(ctx, e); err != nil {
					b.Fatal(err)
				}
			}
			b.Run("alone", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					pair(benchmarkEvent())
				}
			})
			b.Run("parallel", func(b *testing.B) {
				b.ReportAllocs()
				b.SetParallelism(32)
				b.RunParallel(func(pb *testing.PB) {
					for i := 0; pb.Next(); i++ {
						e := benchmarkEvent()
						e.Request = fmt.Sprint(i)
						pair(e)
					}
				})
			})
		})
	}
}

func BenchmarkRead(b *testing.B) {
	e := benchmarkEvent()
	text := encoded(e)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parse(text); err != nil {
			b.Fatal(err)
		}
	}
}
