package meter

import (
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"iap/internal/modelapi"
)

// result is all a meter says of an answer.
type result struct {
	out     string
	usage   Usage
	running Usage
	id      string
	failed  bool
}

func run(c modelapi.Class, body string, next func(left int) int) result {
	m := New(c, http.StatusOK, nil)
	var out []byte
	for left := body; left != ""; {
		n := next(len(left))
		out = append(out, m.Feed([]byte(left[:n]))...)
		left = left[n:]
	}
	r := result{running: m.Running(), out: string(append(out, m.Rest()...)), usage: m.Finish(true)}
	r.id, r.failed = m.ID(), m.Failed()
	return r
}

// checkCuts holds that an answer in any pieces comes to the same as in one.
func checkCuts(t *testing.T, c modelapi.Class, body string, seed uint64) result {
	t.Helper()
	want := run(c, body, func(left int) int { return left })
	random := rand.New(rand.NewPCG(seed, seed))
	for _, longest := range []int{1, 4, 64, 1 + len(body)} {
		got := run(c, body, func(left int) int { return 1 + random.IntN(min(left, longest)) })
		if got != want {
			t.Fatalf("%q in pieces of up to %d\n got %+v\nwant %+v", body, longest, got, want)
		}
	}
	return want
}

func seeds(f *testing.F, framing modelapi.Framing) {
	for _, group := range [][]form{openAIForms, otherForms, nativeForms, quietForms} {
		for _, form := range group {
			if form.class.Framing == framing {
				f.Add([]byte(form.body), uint64(len(form.body)))
				if framing != modelapi.JSON {
					f.Add([]byte(form.body+form.body), uint64(len(form.body))) // messages and their like
				}
			}
		}
	}
}

func FuzzSSE(f *testing.F) {
	seeds(f, modelapi.SSE)
	for i, stream := range streams {
		f.Add([]byte(stream), uint64(i))
	}
	f.Fuzz(func(t *testing.T, body []byte, seed uint64) {
		if len(body) > maxHeld {
			return
		}
		checkCuts(t, modelapi.Class{Action: modelapi.Chat, Framing: modelapi.SSE, Hands: modelapi.IDResponse}, string(body), seed)
		got := checkCuts(t, hidden, string(body), seed)
		for _, e := range eventsOf(string(body)) {
			if strings.Contains(e.data, "usage") && (!jsontext.Value(e.data).IsValid() || strings.Contains(e.data, `\`)) {
				return // the meter is no validator
			}
		}
		if want := withoutUsage(string(body)); got.out != want {
			t.Fatalf("%q\n got %q\nwant %q", body, got.out, want)
		}
	})
}

func FuzzNDJSON(f *testing.F) {
	seeds(f, modelapi.NDJSON)
	f.Fuzz(func(t *testing.T, body []byte, seed uint64) {
		if got := checkCuts(t, chatLines, string(body), seed); got.out != string(body) {
			t.Fatalf("%q was changed to %q", body, got.out)
		}
	})
}

func FuzzPlain(f *testing.F) {
	seeds(f, modelapi.JSON)
	f.Fuzz(func(t *testing.T, body []byte, seed uint64) {
		if len(body) > maxHeld {
			return
		}
		for _, hands := range []string{"", modelapi.IDResponse, modelapi.IDSession} {
			for _, action := range []modelapi.Action{modelapi.Chat, modelapi.Embed} {
				c := modelapi.Class{Action: action, Framing: modelapi.JSON, Hands: hands}
				got := checkCuts(t, c, string(body), seed)
				if got.out != string(body) {
					t.Fatalf("%q was changed to %q", body, got.out)
				}
				if hands != "" || !validJSON(body) {
					continue
				}
				reference := countsOf(c, body)
				if want := reference.usage(true); got.usage != want {
					t.Fatalf("%q: %+v, the reference %+v", body, got.usage, want)
				}
			}
		}
	})
}

func validJSON(body []byte) bool {
	return jsontext.Value(body).IsValid(jsontext.AllowDuplicateNames(true))
}
