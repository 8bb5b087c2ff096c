package guard

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// budget is a reservation of a fixed size, with a hard end.
type budget struct {
	reservation
	output int64        // set aside; -1: without bound
	most   int64        // of input and output together; 0: no end
	in     atomic.Int64 // as last told by Use
	out    atomic.Int64

	asked   chan Ask
	outcome chan Event
}

func newBudget(output, most int64) *budget {
	return &budget{output: output, most: most, asked: make(chan Ask, 16), outcome: make(chan Event, 16)}
}

func (b *budget) Output() int64        { return b.output }
func (b *budget) Header(h http.Header) { h.Set("X-Ratelimit-Limit-Tokens", "1000") }
func (b *budget) Settle(e Event)       { b.outcome <- e }

func (b *budget) Use(in, out int64) error {
	b.in.Store(in)
	b.out.Store(out)
	if b.most > 0 && in+out > b.most {
		return &Limited{Code: "budget_exceeded", Message: "1,000 tokens/1h of grant g1 used", RetryAfter: time.Minute}
	}
	return nil
}

func (b *budget) reserving(f *fixture) {
	f.guard.Reserve = func(_ context.Context, a Ask) (Reservation, error) {
		b.asked <- a
		return b, nil
	}
}

// allowing makes every decision this one.
func allowing(d Decision) option {
	return func(f *fixture) {
		d.Allow = true
		f.guard.Decide = func(context.Context, Question) Decision { return d }
	}
}

func served(server string) option { return func(f *fixture) { f.resource.Server = server } }

func TestWhatARequestMayCostIsReserved(t *testing.T) {
	long := strings.Repeat("word ", 80) // 400 bytes
	for name, try := range map[string]struct {
		path, body string
		most       int
		want       Ask
	}{
		"unsaid":             {"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"` + long + `"}]}`, 0, Ask{Output: 4096, Choices: 1, Unstated: true}},
		"unsaid, capped":     {"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"` + long + `"}]}`, 100, Ask{Output: 100, Choices: 1, Unstated: true}},
		"said":               {"/v1/chat/completions", `{"model":"m","max_tokens":50,"messages":[{"role":"user","content":"` + long + `"}]}`, 0, Ask{Output: 50, Choices: 1}},
		"more than the cap":  {"/v1/chat/completions", `{"model":"m","max_tokens":50,"messages":[{"role":"user","content":"` + long + `"}]}`, 20, Ask{Output: 20, Choices: 1}},
		"three choices":      {"/v1/chat/completions", `{"model":"m","max_tokens":50,"n":3,"messages":[{"role":"user","content":"` + long + `"}]}`, 0, Ask{Output: 150, Choices: 3}},
		"prompts × choices":  {"/v1/completions", `{"model":"m","max_tokens":5,"n":2,"prompt":["` + long + `","x","y"]}`, 0, Ask{Output: 30, Choices: 6}},
		"an embedding":       {"/v1/embeddings", `{"model":"m","input":"` + long + `"}`, 20, Ask{Output: 0, Choices: 1}},
		"no bound is unsaid": {"/v1/completions", `{"model":"m","max_tokens":-1,"prompt":"` + long + `"}`, 0, Ask{Output: 4096, Choices: 1, Unstated: true}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBudget(-1, 0)
			f := newFixture(t, served("vllm"), b.reserving, allowing(Decision{MaxOutputTokens: try.most}))
			f.do(f.request("POST", try.path, try.body))
			a := <-b.asked
			if a.Output != try.want.Output || a.Unstated != try.want.Unstated || a.Question.Model != "m" {
				t.Errorf("asked for %+v, want %+v", a, try.want)
			}
			if a.Input < 100 || a.Input > 140 {
				t.Errorf("400 bytes of prompt are %d tokens", a.Input)
			}
			<-b.outcome
		})
	}
}

func TestWhatTheServerMayGenerateIsWhatWasReserved(t *testing.T) {
	for name, try := range map[string]struct {
		output int64
		cap    int
		body   string
		want   float64
	}{
		"the whole":        {4096, 0, `{"model":"m","messages":[]}`, 4096},
		"what is left":     {100, 0, `{"model":"m","messages":[]}`, 100},
		"for each of four": {100, 0, `{"model":"m","n":4,"messages":[]}`, 25},
		"less than asked":  {100, 0, `{"model":"m","max_tokens":4000,"messages":[]}`, 100},
		"the decision's":   {-1, 77, `{"model":"m","messages":[]}`, 77},
		"both":             {50, 77, `{"model":"m","messages":[]}`, 50},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, served("vllm"), newBudget(try.output, 0).reserving, allowing(Decision{MaxOutputTokens: try.cap}), func(f *fixture) {
				f.guard.Salt = func(c *Caller) string { return "salt of " + c.Principal }
			})
			response := f.do(f.request("POST", "/v1/chat/completions", try.body))
			if response.StatusCode != 200 || response.Header.Get("X-Ratelimit-Limit-Tokens") != "1000" {
				t.Fatalf("got %d %v %s", response.StatusCode, response.Header, readAll(t, response))
			}
			var sent map[string]any
			if err := json.Unmarshal(f.forwarded()[0].Body, &sent); err != nil {
				t.Fatal(err)
			}
			got := sent["max_tokens"]
			if got == nil {
				got = sent["max_completion_tokens"]
			}
			if got != try.want || sent["user"] != "corp/ann" || sent["cache_salt"] != "salt of corp/ann" {
				t.Errorf("sent %v", sent)
			}
		})
	}
}

func TestFewerTokensThanAnswersAreARefusal(t *testing.T) {
	b := newBudget(3, 0)
	f := newFixture(t, served("vllm"), b.reserving)
	response := f.do(f.request("POST", "/v1/chat/completions", `{"model":"m","n":4,"messages":[]}`))
	if body := readAll(t, response); response.StatusCode != 429 || !strings.Contains(body, "budget_exceeded") || b.released.Load() != 1 {
		t.Errorf("got %d %s, released %d", response.StatusCode, body, b.released.Load())
	}
}

func TestEveryModelActionAndMediumIsDecided(t *testing.T) {
	var asked []string
	f := newFixture(t, served("vllm"), func(f *fixture) {
		f.guard.Decide = func(_ context.Context, q Question) Decision {
			if q.Action != ActionReach {
				f.note(func() { asked = append(asked, fmt.Sprint(q.Action, q.Model, q.Media)) })
			}
			return Decision{Allow: true, MaxOutputTokens: map[string]int{"chat": 50, "tool": 30}[q.Action]}
		}
	})
	response := f.do(f.request("POST", "/v1/responses", `{"model":"m","tools":[{"type":"web_search"}],"input":[{"role":"user","content":[{"type":"input_image","image_url":"data:image/png;base64,AA=="}]}]}`))
	if response.StatusCode != 200 {
		t.Fatalf("got %d %s", response.StatusCode, readAll(t, response))
	}
	if want := []string{"chatm[image]", "toolm[image]"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	if body := string(f.forwarded()[0].Body); !strings.Contains(body, `"max_output_tokens":30`) {
		t.Errorf("the least of all bounds is not in %s", body)
	}
	f = newFixture(t, served("vllm"), func(f *fixture) {
		f.guard.Decide = func(_ context.Context, q Question) Decision {
			return Decision{Allow: q.Action != "tool", Reason: "action_not_granted"}
		}
	})
	response = f.do(f.request("POST", "/v1/responses", `{"model":"m","tools":[{"type":"web_search"}],"input":"hi"}`))
	if e := f.recorded()[0]; response.StatusCode != 403 || e.Action != "chat" || e.Refused != "tool" || len(f.forwarded()) != 0 {
		t.Errorf("a tool that is not granted: %d, %+v", response.StatusCode, e)
	}
}

func TestWhatTheDecisionWasAboutIsRecorded(t *testing.T) {
	f := newFixture(t, served("vllm"))
	f.do(f.request("POST", "/v1/responses", `{"model":"m","tools":[{"type":"web_search"}],"input":[{"role":"user","content":[{"type":"input_image","image_url":"data:image/png;base64,AA=="}]}]}`))
	if e := f.recorded()[0]; !slices.Equal(e.Also, []string{"tool"}) || !slices.Equal(e.Media, []string{"image"}) {
		t.Errorf("decision %+v", e)
	}
}

func TestAnAliasIsSentAndRecordedUnderBothNames(t *testing.T) {
	f := newFixture(t, func(f *fixture) { f.resource.Aliases = map[string]string{"default": "phi3:latest"} })
	f.do(f.request("POST", "/v1/chat/completions", `{"model":"default","messages":[{"role":"user","content":"x"}]}`))
	e := f.outcome()
	if e.Alias != "default" || e.Model != "phi3:latest" || !strings.Contains(string(f.forwarded()[0].Body), `"model":"phi3:latest"`) {
		t.Errorf("recorded %q for %q, sent %s", e.Alias, e.Model, f.forwarded()[0].Body)
	}
}

func TestAHealthCheckIsNotHeldToLimits(t *testing.T) {
	b := newBudget(-1, 0)
	f := newFixture(t, served("vllm"), b.reserving)
	f.do(f.request("GET", "/health", ""))
	f.outcome()
	if len(b.asked) != 0 {
		t.Errorf("reserved %+v", <-b.asked)
	}
}

func TestWhatACompressedBodyMayBecomeIsHeldAndGivenBack(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = io.WriteString(z, chatBody)
	_ = z.Close()
	send := func(f *fixture) *http.Response {
		return f.do(f.request("POST", "/v1/chat/completions", packed.String(), "Content-Encoding: gzip"))
	}
	f := newFixture(t)
	if response := send(f); response.StatusCode != 200 {
		t.Fatalf("got %d %s", response.StatusCode, readAll(t, response))
	}
	f.outcome()
	f.guard.buffered.mu.Lock()
	if f.guard.buffered.all != 0 {
		t.Errorf("%d bytes are still held", f.guard.buffered.all)
	}
	f.guard.buffered.mu.Unlock()
	f = newFixture(t, func(f *fixture) { f.guard.Limits.Buffered = 1 << 20 })
	if response := send(f); response.StatusCode != 503 {
		t.Errorf("without room for what it may unfold to: got %d", response.StatusCode)
	}
}
