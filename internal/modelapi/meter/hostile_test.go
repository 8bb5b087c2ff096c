package meter

import (
	"net/http"
	"strings"
	"testing"

	"iap/internal/modelapi"
)

func TestPO15UsageThatCannotBeTrueIsNotTaken(t *testing.T) {
	for _, usage := range []string{
		`{"prompt_tokens":-1,"completion_tokens":3}`,
		`{"prompt_tokens":9,"completion_tokens":-3}`,
		`{"prompt_tokens":9.5,"completion_tokens":3}`,
		`{"prompt_tokens":9,"completion_tokens":3e0}`,
		`{"prompt_tokens":9,"completion_tokens":1000000000001}`,
		`{"prompt_tokens":9,"completion_tokens":18446744073709551617}`,
		`{"prompt_tokens":9,"completion_tokens":` + strings.Repeat("0", 4*maxKept) + `3}`,
		`{"prompt_tokens":9,"completion_tokens":"3"}`,
		`{"prompt_tokens":9,"completion_tokens":[3]}`,
		`{"prompt_tokens":9,"completion_tokens":true}`,
		`{"prompt_tokens":9,"completion_tokens":3,"total_tokens":11}`,
		`{"prompt_tokens":9,"total_tokens":8}`,
		`{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":10}}`,
		`{"prompt_tokens":9,"completion_tokens":3,"completion_tokens_details":{"reasoning_tokens":4}}`,
		`{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}`,
		`{"x":{"prompt_tokens":9,"completion_tokens":3}}`,
		`[{"prompt_tokens":9,"completion_tokens":3}]`,
		`"{\"prompt_tokens\":9,\"completion_tokens\":3}"`,
		`{"prompt\u005ftokens":9,"completion\u005ftokens":3}`,
	} {
		body := piece + piece + `data: {"choices":[],"usage":` + usage + "}\n\n" + done
		for _, step := range []int{len(body), 1} {
			m := New(chatStream, http.StatusOK, nil)
			feed(m, body, step)
			if got, want := m.Finish(true), (Usage{-1, 2, -1, -1, Deltas}); got != want {
				t.Errorf("%s: %+v, want %+v", usage, got, want)
			}
		}
	}
}

func TestLookAlikesAreNoUsage(t *testing.T) {
	for _, body := range []string{
		`{"choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}"}}]}`,
		`{"choices":[{"message":{"content":"0123456789012345678901234567890123456789012345678"},"usage":{"prompt_tokens":1,"completion_tokens":1}}]}`,
		`{"choices":[{"message":{"content":"0123456789012345678901234567890123456789012345678"}}],"x":[{"usage":{"completion_tokens":1}}]}`,
		`{"choices":[{"message":{"content":"0123456789012345678901234567890123456789\\\"}}],\\\""}}],"x\"usage":{"completion_tokens":1}}`,
	} {
		m := New(chatPlain, http.StatusOK, nil)
		feed(m, body, 3)
		if got := m.Finish(true); got.Source != Estimate || got.Output < 12 || got.Output > 14 {
			t.Errorf("%s: %+v", body, got)
		}
	}
}

func TestPiecesBehindAFinalFigureAreAdded(t *testing.T) {
	m := New(hidden, http.StatusOK, nil)
	feed(m, "data: "+usageChunk+"\n\n"+strings.Repeat(piece, 100)+done, 64)
	if got, want := m.Finish(true), (Usage{9, 103, -1, -1, Deltas}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestNoFigureHidesTextThatWasSeen(t *testing.T) {
	m := New(chatLines, http.StatusOK, nil)
	feed(m, ollamaPieces+`{"done":true,"prompt_eval_count":4,"eval_count":0}`+"\n", 64)
	if got, want := m.Finish(true), (Usage{4, 3, -1, -1, Deltas}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestAnErrorStatusIsCountedOnlyByWhatTheServerSays(t *testing.T) {
	m := New(chatPlain, http.StatusInternalServerError, nil)
	feed(m, `{"error":{"message":"a long story"}}`, 64)
	if got, want := m.Finish(true), (Usage{-1, -1, -1, -1, Unset}); got != want || !m.Failed() {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestWhatAHostileServerSendsIsHeldToBounds(t *testing.T) {
	stream := modelapi.Class{Action: modelapi.Chat, Framing: modelapi.SSE, HidesUsage: true, Hands: modelapi.IDResponse}
	bodies := map[string]string{
		"a name without end":    `data: {"` + strings.Repeat("x", 1<<20),
		"an id without end":     `data: {"response":{"id":"` + strings.Repeat("x", 1<<20),
		"a number without end":  `data: {"usage":{"prompt_tokens":` + strings.Repeat("1", 1<<20),
		"a line without end":    strings.Repeat("x", 1<<20),
		"depth without end":     `data: ` + strings.Repeat(`{"delta":{"message":{"content":[`, 1<<15),
		"events without end":    strings.Repeat("event: x\n", 1<<17),
		"indices without bound": strings.Repeat(`data: {"choices":[{"index":999999999,"delta":{}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`+"\n\n", 100),
	}
	for name, body := range bodies {
		m := New(stream, http.StatusOK, nil)
		out := feed(m, body, 4096)
		if out != body {
			t.Errorf("%s: passed %d bytes of %d", name, len(out), len(body))
		}
		if n := cap(m.hold.several) + cap(m.hold.held) + cap(m.scanner.kept) + cap(m.scanner.ev.id) + 32*cap(m.counts.parts); n > 4*maxHeld {
			t.Errorf("%s: %d bytes are held", name, n)
		}
	}
}
