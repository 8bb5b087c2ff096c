package meter

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"iap/internal/modelapi"
)

// samples are answers as servers write them, about a megabyte each, with the reads that deliver them.
func samples() []sample {
	chat := repeat(`data: {"id":"chatcmpl-123","object":"chat.completion.chunk","created":1694268190,"model":"phi3:4b","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"role":"assistant","content":" word%d"},"finish_reason":null}]}` + "\n\n")
	llama := repeat(`data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":" word%d"}}],"created":1694268190,"id":"chatcmpl-9b2f","model":"phi-3","system_fingerprint":"b7000-abc","object":"chat.completion.chunk"}` + "\n\n")
	anthropic := repeat("event: content_block_delta\n" + `data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" word%d"}}` + "\n\n")
	running := repeat(`data: {"index":0,"content":" word","tokens":[263],"stop":false,"id_slot":0,"tokens_predicted":%d,"tokens_evaluated":12}` + "\n\n")
	ollama := repeat(`{"model":"phi3:4b","created_at":"2026-08-04T19:22:45.499127Z","message":{"role":"assistant","content":" word%d"},"done":false}` + "\n")
	return []sample{
		{"chat", modelapi.SSE, chat, 1},
		{"chat-hidden", modelapi.SSE, chat, 1},
		{"chat-llamacpp", modelapi.SSE, llama, 1},
		{"messages", modelapi.SSE, anthropic, 1},
		{"completion-llamacpp", modelapi.SSE, running, 1},
		{"chat-ollama", modelapi.NDJSON, ollama, 1},
		{"chat-bulk", modelapi.SSE, chat, 128},
		{"plain-chat", modelapi.JSON, plainChat(), 0},
		{"embeddings", modelapi.JSON, embeddings(), 0},
	}
}

type sample struct {
	name    string
	framing modelapi.Framing
	events  []string
	batch   int // events to a read; 0: reads of 32 KiB
}

func repeat(format string) []string {
	out := make([]string, 4000)
	for i := range out {
		out[i] = fmt.Sprintf(format, i)
	}
	return out
}

func plainChat() []string {
	text := strings.Repeat(`The quick brown fox said:\n\"one two three\" and went on its way, as foxes do. `, 10000)
	return []string{`{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"` +
		text + `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}`}
}

func embeddings() []string {
	r := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	b.WriteString(`{"object":"list","data":[`)
	for i := range 64 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"object":"embedding","index":%d,"embedding":[0`, i)
		for range 768 {
			fmt.Fprintf(&b, ",%.9f", r.Float64()-0.5)
		}
		b.WriteString("]}")
	}
	b.WriteString(`],"model":"nomic","usage":{"prompt_tokens":5,"total_tokens":5}}`)
	return []string{b.String()}
}

// reads joins the events into the pieces a reader would see.
func (s *sample) reads() (pieces [][]byte, size int64) {
	all := strings.Join(s.events, "")
	if s.batch == 0 {
		for p := []byte(all); len(p) > 0; {
			n := min(len(p), 32<<10)
			pieces = append(pieces, p[:n])
			p = p[n:]
		}
	}
	for i := 0; s.batch > 0 && i < len(s.events); i += s.batch {
		pieces = append(pieces, []byte(strings.Join(s.events[i:min(i+s.batch, len(s.events))], "")))
	}
	return pieces, int64(len(all))
}

func BenchmarkFeed(b *testing.B) {
	for _, s := range samples() {
		b.Run(s.name, func(b *testing.B) {
			pieces, size := s.reads()
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				m := New(modelapi.Class{Action: modelapi.Chat, Framing: s.framing, HidesUsage: s.name == "chat-hidden"}, 200, nil)
				for _, p := range pieces {
					m.Feed(p)
				}
			}
		})
	}
}

func TestNoAllocationForAToken(t *testing.T) {
	for _, s := range samples() {
		if s.batch == 0 {
			continue
		}
		pieces, _ := s.reads()
		m := New(modelapi.Class{Action: modelapi.Chat, Framing: s.framing, HidesUsage: s.name == "chat-hidden"}, 200, nil)
		m.Feed(pieces[0])
		half := len(pieces[1]) / 2
		cut := append(append([]byte{}, pieces[1][half:]...), pieces[2][:half]...)
		m.Feed(pieces[1][:half])
		m.Feed(cut) // what is kept across a cut has its room now
		m.Feed(pieces[2][half:])
		next := 3
		if n := testing.AllocsPerRun(len(pieces)-5, func() {
			m.Feed(pieces[next])
			m.Running()
			next++
		}); n != 0 {
			t.Errorf("%s: %v allocations for a read", s.name, n)
		}
		if n := testing.AllocsPerRun(100, func() { m.Feed(cut); m.Feed(pieces[2][half:]); m.Feed(pieces[1][:half]) }); n != 0 {
			t.Errorf("%s: %v allocations for a read that is cut", s.name, n)
		}
	}
}
