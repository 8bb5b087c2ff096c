package guard

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// wire is how one dialect streams.
type wire struct {
	path, body, kind string
	first, piece     string
	last             string // with 7 tokens in, 40 out
	cut              string // what a spent budget reads like
}

const spentMessage = "1,000 tokens/1h of grant g1 used"

func wires() map[string]wire {
	return map[string]wire{
		"openai": {
			"/v1/chat/completions", `{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`, "text/event-stream", "",
			`data: {"choices":[{"index":0,"delta":{"content":"word"}}]}` + "\n\n",
			`data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":40,"total_tokens":47}}` + "\n\ndata: [DONE]\n\n",
			`data: {"error":{"message":"` + spentMessage + `","type":"rate_limit_error","param":null,"code":"budget_exceeded"}}` + "\n\n",
		},
		"anthropic": {
			"/v1/messages", `{"model":"m","stream":true,"max_tokens":500,"messages":[{"role":"user","content":"hi"}]}`, "text/event-stream",
			"event: message_start\n" + `data: {"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":7,"output_tokens":1}}}` + "\n\n",
			"event: content_block_delta\n" + `data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"word"}}` + "\n\n",
			"event: message_delta\n" + `data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":7,"output_tokens":40}}` + "\n\nevent: message_stop\n" + `data: {"type":"message_stop"}` + "\n\n",
			"event: error\n" + `data: {"type":"error","error":{"type":"rate_limit_error","message":"` + spentMessage + `","code":"budget_exceeded"}}` + "\n\n",
		},
		"ollama": {
			"/api/chat", `{"model":"m","messages":[{"role":"user","content":"hi"}]}`, "application/x-ndjson", "",
			`{"model":"m","message":{"role":"assistant","content":"word"},"done":false}` + "\n",
			`{"model":"m","done":true,"prompt_eval_count":7,"eval_count":40}` + "\n",
			`{"error":"` + spentMessage + `","code":"budget_exceeded"}` + "\n",
		},
		"responses": {
			"/v1/responses", `{"model":"m","stream":true,"input":"hi"}`, "text/event-stream",
			"event: response.created\n" + `data: {"type":"response.created","response":{"id":"resp_1","status":"in_progress"}}` + "\n\n",
			"event: response.output_text.delta\n" + `data: {"type":"response.output_text.delta","delta":"word"}` + "\n\n",
			"event: response.completed\n" + `data: {"type":"response.completed","response":{"id":"resp_1","usage":{"input_tokens":7,"output_tokens":40,"total_tokens":47}}}` + "\n\n",
			"event: error\n" + `data: {"type":"error","code":"budget_exceeded","message":"` + spentMessage + `","param":null}` + "\n\n",
		},
	}
}

func TestAStreamIsChargedWhatTheServerSays(t *testing.T) {
	for name, d := range wires() {
		t.Run(name, func(t *testing.T) {
			s, b := newScript(), newBudget(-1, 0)
			f := newFixture(t, streaming(s, d.kind), b.reserving)
			response := f.do(f.request("POST", d.path, d.body))
			go func() {
				s.pieces <- d.first + d.piece
				for _, half := range []string{d.piece[:7], d.piece[7:], d.last[:20], d.last[20:]} {
					s.pieces <- half
				}
				close(s.pieces)
			}()
			text := readAll(t, response)
			e := <-b.outcome
			if e.TokensIn != 7 || e.TokensOut != 40 || e.Usage != "provider" || e.Ended != completed {
				t.Errorf("outcome %+v", e)
			}
			if want := d.first + d.piece + d.piece + d.last; name == "openai" {
				if want = d.piece + d.piece + "data: [DONE]\n\n"; text != want {
					t.Errorf("a usage nobody had asked for shows: %q", text)
				}
			} else if text != want {
				t.Errorf("got %q", text)
			}
			if o := f.outcome(); o.TokensOut != 40 || o.Usage != "provider" {
				t.Errorf("recorded %+v", o)
			}
		})
	}
}

func TestASpentBudgetCutsInTheProtocolAndChargesWhatWasGenerated(t *testing.T) {
	for name, d := range wires() {
		t.Run(name, func(t *testing.T) {
			s, b := newScript(), newBudget(100, 30)
			f := newFixture(t, streaming(s, d.kind), b.reserving)
			response := f.do(f.request("POST", d.path, d.body))
			read := make(chan string, 1)
			go func() {
				text, err := io.ReadAll(response.Body)
				if err == nil {
					text = append(text, " ended cleanly"...)
				}
				read <- string(text)
			}()
			sent := d.first
			feed(s, d.first)
			for feed(s, d.piece) {
				sent += d.piece
			}
			e := <-b.outcome
			if e.Ended != "budget_exceeded" || e.Usage != "deltas" || e.TokensIn+e.TokensOut != 31 || e.TokensOut < 10 {
				t.Errorf("outcome %+v", e)
			}
			text := <-read
			if head, ok := strings.CutSuffix(text, d.cut); !ok || !strings.HasPrefix(sent, head) {
				t.Errorf("read %q", text)
			}
		})
	}
}

func TestAnAnswerThatEndsWithItsBudgetSaysSoBeforeItsClientStopsReading(t *testing.T) {
	d := wires()["openai"]
	s, b := newScript(), newBudget(100, 30)
	f := newFixture(t, streaming(s, d.kind), b.reserving)
	response := f.do(f.request("POST", d.path, d.body))
	feed(s, d.piece+d.last) // the model stopped at what the budget had left
	text, err := io.ReadAll(response.Body)
	if err == nil || string(text) != d.piece+d.cut {
		t.Errorf("read %q, %v", text, err)
	}
	if e := <-b.outcome; e.Ended != "budget_exceeded" || e.TokensOut != 40 {
		t.Errorf("outcome %+v", e)
	}
}

// feed gives a piece to an answer and says whether it was still read.
func feed(s *script, piece string) bool {
	if piece == "" {
		return true
	}
	select {
	case s.pieces <- piece:
		return true
	case <-s.closed:
		return false
	}
}

func TestPO15AnAnswerItsCallerLeftIsChargedByTheRunningCount(t *testing.T) {
	d := wires()["anthropic"]
	s, b := newScript(), newBudget(100, 0)
	f := newFixture(t, streaming(s, d.kind), b.reserving)
	response := f.do(f.request("POST", d.path, d.body))
	s.pieces <- d.first
	for range 5 {
		s.pieces <- d.piece
		if _, err := io.ReadFull(response.Body, make([]byte, len(d.piece))); err != nil {
			t.Fatal(err)
		}
	}
	_ = response.Body.Close()
	if e := <-b.outcome; e.Ended != clientGone || e.TokensIn != 7 || e.TokensOut < 4 || e.TokensOut > 6 {
		t.Errorf("outcome %+v", e)
	}
}

func TestWhatTheServerDoesNotSayIsEstimated(t *testing.T) {
	for name, try := range map[string]struct {
		path, body string
		answer     func(context.Context, *Request) (*Response, error)
		in, out    int64
		usage      string
	}{
		"an embedding without usage": {"/api/embeddings", `{"model":"m","prompt":"12345678"}`, answering(200, `{"embedding":[1]}`), 18, -1, "estimate"},
		"no answer at all": {
			"/api/chat", `{"model":"m","messages":[{"role":"user","content":"12345678"}]}`,
			func(context.Context, *Request) (*Response, error) {
				return nil, &UpstreamError{Code: "agent_lost", Message: "gone"}
			}, 19, -1, "estimate",
		},
		"nobody was there": {
			"/api/chat", `{"model":"m","messages":[{"role":"user","content":"12345678"}]}`,
			func(context.Context, *Request) (*Response, error) {
				return nil, &UpstreamError{Code: "agent_offline", Status: 503, Message: "none"}
			}, -1, -1, "",
		},
		"a refusal of the server's": {"/api/chat", `{"model":"m","messages":[{"role":"user","content":"12345678"}]}`, answering(400, `{"error":"bad"}`), -1, -1, ""},
		"a list":                    {"/api/tags", "", answering(200, `{"models":[]}`), -1, -1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(f *fixture) { f.guard.Forward = try.answer })
			method := "POST"
			if try.body == "" {
				method = "GET"
			}
			f.do(f.request(method, try.path, try.body))
			if e := f.outcome(); e.TokensIn != try.in || e.Usage != try.usage || max(e.TokensOut, 0) != max(try.out, 0) {
				t.Errorf("in %d, out %d, by %q", e.TokensIn, e.TokensOut, e.Usage)
			}
		})
	}
}

func TestAnAnswerNobodyWaitedForIsChargedByTheTime(t *testing.T) {
	for name, try := range map[string]struct {
		body string
		out  int64
	}{
		"in one piece":          {`{"model":"m","messages":[{"role":"user","content":"hi"}]}`, 300},
		"no more than it could": {`{"model":"m","max_tokens":20,"messages":[{"role":"user","content":"hi"}]}`, 20},
		"a stream not begun":    {`{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`, -1},
	} {
		t.Run(name, func(t *testing.T) {
			var clock atomic.Int64
			b := newBudget(4096, 0)
			f := newFixture(t, served("vllm"), b.reserving, func(f *fixture) {
				f.guard.Now = func() time.Time { return time.Unix(clock.Load(), 0) }
				f.guard.Forward = func(context.Context, *Request) (*Response, error) {
					clock.Add(3)
					return nil, &UpstreamError{Code: "agent_lost", Message: "gone"}
				}
			})
			f.do(f.request("POST", "/v1/chat/completions", try.body))
			if e := <-b.outcome; e.TokensOut != try.out || e.TokensIn < 16 || e.Usage != "estimate" {
				t.Errorf("in %d, out %d, by %q; want %d out", e.TokensIn, e.TokensOut, e.Usage, try.out)
			}
		})
	}
}

func answering(status int, body string) func(context.Context, *Request) (*Response, error) {
	return func(context.Context, *Request) (*Response, error) {
		return answerWith(status, "application/json", body), nil
	}
}

func TestAHiddenUsageLeavesNoLengthBehind(t *testing.T) {
	d := wires()["openai"]
	f := newFixture(t, func(f *fixture) {
		f.guard.Forward = func(context.Context, *Request) (*Response, error) {
			return answerWith(200, "text/event-stream", d.piece+d.last), nil
		}
	})
	response := f.do(f.request("POST", d.path, d.body))
	if text := readAll(t, response); text != d.piece+"data: [DONE]\n\n" || response.ContentLength >= 0 {
		t.Errorf("read %q of %d bytes", text, response.ContentLength)
	}
	if e := f.outcome(); e.Ended != completed || e.TokensOut != 40 {
		t.Errorf("outcome %+v", e)
	}
}

func TestAnErrorInsideAnAnswerIsItsOutcome(t *testing.T) {
	s := newScript()
	f := newFixture(t, streaming(s, "text/event-stream"))
	response := f.chat()
	go func() {
		s.pieces <- `data: {"error":{"message":"out of memory"}}` + "\n\n"
		close(s.pieces)
	}()
	readAll(t, response)
	if e := f.outcome(); e.Ended != upstreamError || e.Status != 200 || e.TokensIn > 0 || e.TokensOut > 0 {
		t.Errorf("outcome %+v", e)
	}
}

func TestTheTimeToTheFirstTokenIsNotTheQueues(t *testing.T) {
	s := newScript()
	var clock atomic.Int64
	f := newFixture(t, streaming(s, "text/event-stream"), func(f *fixture) {
		f.guard.Now = func() time.Time { return time.Unix(clock.Load(), 0) }
	})
	response := f.do(f.request("POST", "/v1/messages", `{"model":"m","stream":true,"max_tokens":5,"messages":[{"role":"user","content":"hi"}]}`))
	for _, piece := range []string{": queued: 3 before you\n", "\n: queued: 1 before you\n\n"} {
		clock.Add(10)
		s.pieces <- piece
		if _, err := io.ReadFull(response.Body, make([]byte, len(piece))); err != nil {
			t.Fatal(err)
		}
	}
	clock.Add(1)
	s.pieces <- event(1)
	close(s.pieces)
	readAll(t, response)
	if e := f.outcome(); e.TTFT != 21*time.Second {
		t.Errorf("time to first token %s, want 21s", e.TTFT)
	}
}

func TestAModelThatIsGoneIsAnsweredWithWhatIsThere(t *testing.T) {
	f := newFixture(t, func(f *fixture) {
		f.resource.Models = []string{"secret:latest", "phi3:latest", "phi4:14b", "llama3:latest"}
		f.resource.Aliases = map[string]string{"default": "phi4:14b", "hidden": "secret:latest"}
		f.guard.Decide = func(_ context.Context, q Question) Decision {
			return Decision{Allow: !strings.HasPrefix(q.Model, "secret")}
		}
		f.guard.Forward = answering(404, `{"error":"model 'phi3' not found at /var/lib/ollama"}`)
	})
	for path, want := range map[string]string{
		"/v1/chat/completions": `{"error":{"message":"the model server has no model phi3:latest; it has phi4:14b, default, llama3:latest","type":"not_found_error","param":null,"code":"model_gone"}}`,
		"/api/chat":            `{"error":"the model server has no model phi3:latest; it has phi4:14b, default, llama3:latest","code":"model_gone"}`,
	} {
		response := f.do(f.request("POST", path, chatBody))
		if body := readAll(t, response); response.StatusCode != http.StatusNotFound || body != want {
			t.Errorf("%s: got %d %s", path, response.StatusCode, body)
		}
	}
	if e := f.outcome(); e.Ended != "model_gone" || e.TokensIn != -1 {
		t.Errorf("outcome %+v", e)
	}
}
