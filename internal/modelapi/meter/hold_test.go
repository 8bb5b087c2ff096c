package meter

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"iap/internal/modelapi"
)

var hidden = modelapi.Class{Action: modelapi.Chat, Framing: modelapi.SSE, HidesUsage: true}

const usageChunk = `{"id":"c1","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}`

// streams are event streams in which something must stay and something must go.
var streams = []string{
	piece + "data: " + usageChunk + "\n\n" + done,
	strings.ReplaceAll(piece+"data: "+usageChunk+"\n\n"+done, "\n", "\r\n"),
	"data:" + usageChunk + "\n\n" + piece,
	": ping\n\n" + piece + ": ping\n\ndata: " + usageChunk + "\n\n: ping\n\n" + done,
	": ping\ndata: " + usageChunk + "\n\n" + done,
	"event: chunk\nid: 7\ndata: " + usageChunk + "\nretry: 10\n\n" + done,
	"data: {\"choices\":[],\ndata: \"usage\":{\"prompt_tokens\":1}}\n\n" + done,
	"data: {\"choices\":[],\r\ndata: \"usage\":{}}\r\n\r\n" + done,
	"data: {\"choices\":[{}],\ndata: \"usage\":{\"prompt_tokens\":1}}\n\n" + done,
	`data: {"choices":[],"usage":null}` + "\n\n" + done,
	`data: {"choices":[],"prompt_filter_results":[]}` + "\n\n" + done,
	`data: {"choices":[],"usage":{},"error":{"message":"x"}}` + "\n\n" + done,
	`data: {"choices":[ ] , "usage" : { } }` + "\n\n" + done,
	`data: {"usage":{"choices":[]},"x":"\"choices\":[]"}` + "\n\n" + done,
	`data: {"a":{"choices":[],"usage":{}}}` + "\n\n" + done,
	`data: [{"choices":[],"usage":{}}]` + "\n\n" + done,
	`data: {"choices":[],"usage":{}} and more` + "\n\n" + done,
	"event: error\ndata: {\"choices\":[],\"usage\":{}}\n\n" + done,
	piece + "data: " + usageChunk + "\n\ndata: " + usageChunk + "\n\n" + piece + done,
	piece + "data: " + usageChunk + "\n",
	piece + "data: " + usageChunk,
	piece + "data: " + usageChunk[:40],
	piece + "dat",
	"\n\n\r\n\n" + piece + "\n\n\ndata: " + usageChunk + "\n\n\n",
}

func TestUsageChunkNobodyAskedForIsTakenOut(t *testing.T) {
	if got := withoutUsage(streams[0]); got != piece+done {
		t.Fatalf("the reference left %q", got)
	}
	for _, stream := range streams {
		want := withoutUsage(stream)
		for step := 1; step <= len(stream); step += 1 + step/8 {
			if got := feed(New(hidden, http.StatusOK, nil), stream, step); got != want {
				t.Fatalf("%q in pieces of %d\n got %q\nwant %q", stream, step, got, want)
			}
		}
		if got := feed(New(chatStream, http.StatusOK, nil), stream, 5); got != stream {
			t.Fatalf("changed without need: %q became %q", stream, got)
		}
	}
}

func TestHiddenUsageIsCountedAllTheSame(t *testing.T) {
	m := New(hidden, http.StatusOK, nil)
	feed(m, streams[0], 3)
	if got, want := m.Finish(true), (Usage{9, 3, -1, -1, Provider}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestBytesThatCannotBeTheUsageChunkAreNotHeld(t *testing.T) {
	for _, c := range []struct{ head, held string }{
		{": ping", ""},
		{": ping\n\n", ""},
		{"da", "da"},
		{`data: {"id":"c1","choices":[`, `data: {"id":"c1","choices":[`},
		{`data: {"id":"c1","choices":[{`, ""},
		{`data: {"choices":null`, ""},
		{`data: {"choices":[],"usage":n`, ""},
		{`data: [`, ""},
		{`data: {"choices":[]}`, ""},
		{`data: {"error":{`, ""},
		{piece + `data: {`, `data: {`},
		{piece + piece, ""},
		{"data: " + usageChunk + "\n\n" + piece[:70], ""},
	} {
		m := New(hidden, http.StatusOK, nil)
		out := string(m.Feed([]byte(c.head)))
		if want := strings.TrimPrefix(strings.TrimSuffix(c.head, c.held), "data: "+usageChunk+"\n\n"); out != want {
			t.Errorf("%q: passed %q, want %q", c.head, out, want)
		}
		if rest := string(m.Rest()); rest != c.held {
			t.Errorf("%q: held %q, want %q", c.head, rest, c.held)
		}
	}
}

func TestWholeEventsPassWithoutACopy(t *testing.T) {
	m := New(hidden, http.StatusOK, nil)
	for range 3 {
		p := []byte(piece + piece)
		if out := m.Feed(p); len(out) != len(p) || &out[0] != &p[0] {
			t.Error("a copy was made")
		}
	}
}

func TestAnEventTooLargeToHoldIsPassedOn(t *testing.T) {
	head := `data: {"id":"` + strings.Repeat("x", maxHeld) + `"`
	m := New(hidden, http.StatusOK, nil)
	if out := m.Feed([]byte(head[:maxHeld])); len(out) != 0 {
		t.Fatalf("%d bytes left early", len(out))
	}
	if out := string(m.Feed([]byte(head[maxHeld:]))); out != head {
		t.Errorf("%d bytes of %d passed", len(out), len(head))
	}
	tail := `,"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}` + "\n\n"
	if out := string(m.Feed([]byte(tail))); out != tail {
		t.Errorf("passed %q", out)
	}
	if out := feed(m, "data: "+usageChunk+"\n\n"+done, 9); out != done {
		t.Errorf("the next event: passed %q", out)
	}
}

func TestNoByteOfAnIDLeavesBeforeItIsKnown(t *testing.T) {
	plain := modelapi.Class{Action: modelapi.Chat, Framing: modelapi.JSON, Hands: modelapi.IDResponse}
	stream := modelapi.Class{Action: modelapi.Chat, Framing: modelapi.SSE, Hands: modelapi.IDResponse}
	session := modelapi.Class{Action: modelapi.Session, Framing: modelapi.JSON, Hands: modelapi.IDSession}
	for _, c := range []struct {
		class    modelapi.Class
		body, id string
	}{
		{plain, `{"object":"none","output":[{"id":"msg_1"}],"id":"resp_1","x":1}`, "resp_1"},
		{plain, `{"id":"resp\u005f1\n"}`, "resp_1\n"},
		{plain, `{"id":null,"object":"none"}`, ""},
		{plain, `{"a":{"id":"no"},"b":["id","x"],"c":"\"id\":\"no\""}`, ""},
		{plain, `not JSON "id":"no"`, ""},
		{stream, ": ping\n\n" + responsesBegin, "resp_1"},
		{stream, "event: response.created\ndata:{\ndata:\"response\":\ndata:{\"id\":\"resp_1\"}}\n\n" + piece, "resp_1"},
		{stream, piece + `data: {"id":"no"}` + "\n\n", ""},
		{session, `"9b2f"`, "9b2f"},
		{session, `["no"]`, ""},
		{session, `null`, ""},
	} {
		for step := 1; step <= len(c.body); step++ {
			m := New(c.class, http.StatusOK, nil)
			var out []byte
			for rest := c.body; rest != ""; {
				n := min(step, len(rest))
				out = append(out, m.Feed([]byte(rest[:n]))...)
				rest = rest[n:]
				if at := bytes.Index(out, []byte(`:"resp_`)); at >= 0 && m.ID() == "" {
					t.Fatalf("%q in pieces of %d: %q left before the id was known", c.body, step, out)
				}
			}
			if out = append(out, m.Rest()...); string(out) != c.body {
				t.Fatalf("%q in pieces of %d: passed %q", c.body, step, out)
			}
			if m.ID() != c.id {
				t.Fatalf("%q in pieces of %d: id %q, want %q", c.body, step, m.ID(), c.id)
			}
		}
	}
}

func TestAnIDBeyondTheBoundIsNobodys(t *testing.T) {
	body := `{"metadata":"` + strings.Repeat("x", maxHeld+8192) + `","id":"resp_1"}`
	m := New(modelapi.Class{Action: modelapi.Chat, Framing: modelapi.JSON, Hands: modelapi.IDResponse}, http.StatusOK, nil)
	if out := feed(m, body, 4096); out != body || m.ID() != "" {
		t.Errorf("passed %d bytes of %d, id %q", len(out), len(body), m.ID())
	}
	long := `{"id":"` + strings.Repeat("x", maxKept+1) + `"}`
	m = New(modelapi.Class{Action: modelapi.Chat, Framing: modelapi.JSON, Hands: modelapi.IDResponse}, http.StatusOK, nil)
	if out := feed(m, long, 4096); out != long || m.ID() != "" {
		t.Errorf("passed %d bytes of %d, id %q", len(out), len(long), m.ID())
	}
}

func TestAnErrorHandsOutNoID(t *testing.T) {
	m := New(modelapi.Class{Action: modelapi.Chat, Framing: modelapi.JSON, Hands: modelapi.IDResponse}, http.StatusBadRequest, nil)
	if out := string(m.Feed([]byte(`{"id":"resp_1"`))); out != `{"id":"resp_1"` || m.ID() != "" {
		t.Errorf("passed %q, id %q", out, m.ID())
	}
}
