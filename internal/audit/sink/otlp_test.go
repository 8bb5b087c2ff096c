package sink

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"iap/internal/audit"
)

// collector takes logs as an OpenTelemetry collector does. It knows no field that the protocol does not, and no number that
// should be a text.
type collector struct {
	*httptest.Server
	*received
	mu     sync.Mutex
	answer func(http.ResponseWriter, int) bool // false: it has answered, and takes nothing
	last   []collected
}

type collected struct {
	Time, Observed, Severity, Event string
	Attributes                      map[string]any
}

type strictValue struct {
	StringValue *string `json:"stringValue"`
	IntValue    *string `json:"intValue"`
	BoolValue   *bool   `json:"boolValue"`
}

type strictAttribute struct {
	Key   string      `json:"key"`
	Value strictValue `json:"value"`
}

type strictRequest struct {
	ResourceLogs []struct {
		Resource struct {
			Attributes []strictAttribute `json:"attributes"`
		} `json:"resource"`
		ScopeLogs []struct {
			Scope struct {
				Name    string `json:"name"`
				Version string `json:"version"`
			} `json:"scope"`
			LogRecords []struct {
				TimeUnixNano         string            `json:"timeUnixNano"`
				ObservedTimeUnixNano string            `json:"observedTimeUnixNano"`
				SeverityNumber       int               `json:"severityNumber"`
				SeverityText         string            `json:"severityText"`
				EventName            string            `json:"eventName"`
				Body                 strictValue       `json:"body"`
				Attributes           []strictAttribute `json:"attributes"`
			} `json:"logRecords"`
		} `json:"scopeLogs"`
	} `json:"resourceLogs"`
}

func newCollector(t testing.TB) *collector {
	c := &collector{received: newReceived(), answer: func(http.ResponseWriter, int) bool { return true }}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *collector) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var request strictRequest
	packed, err := gzip.NewReader(q.Body)
	if err == nil {
		in := json.NewDecoder(packed)
		in.DisallowUnknownFields()
		if err = in.Decode(&request); err == nil {
			_, err = io.Copy(io.Discard, packed)
		}
	}
	if err != nil || q.URL.Path != otlpPath || q.Header.Get("Content-Type") != "application/json" || q.Header.Get("Content-Encoding") != "gzip" {
		c.wrong = append(c.wrong, fmt.Sprint(q.URL, q.Header, err))
	}
	w.Header().Set("Content-Type", "application/json")
	lines, records := c.read(request)
	if !c.answer(w, len(records)) {
		return
	}
	if len(records) > 0 {
		c.last = records
		c.take(fmt.Sprint(records[0].Attributes["log.record.uid"], records[len(records)-1].Attributes["log.record.uid"]), strings.Join(lines, "\n")+"\n")
	}
	io.WriteString(w, "{}")
}

func (c *collector) read(request strictRequest) (lines []string, records []collected) {
	for _, resource := range request.ResourceLogs {
		if got := attributes(resource.Resource.Attributes); got["service.name"] != "iap-relay" || got["service.instance.id"] != "main" || got["iap.log"] != origin {
			c.wrong = append(c.wrong, fmt.Sprint(got))
		}
		for _, scope := range resource.ScopeLogs {
			for _, r := range scope.LogRecords {
				lines = append(lines, *r.Body.StringValue)
				records = append(records, collected{r.TimeUnixNano, r.ObservedTimeUnixNano, fmt.Sprint(r.SeverityNumber, r.SeverityText), r.EventName, attributes(r.Attributes)})
			}
		}
	}
	return lines, records
}

func attributes(all []strictAttribute) map[string]any {
	values := map[string]any{}
	for _, a := range all {
		switch {
		case a.Value.StringValue != nil:
			values[a.Key] = *a.Value.StringValue
		case a.Value.IntValue != nil:
			n, err := strconv.ParseInt(*a.Value.IntValue, 10, 64)
			if err != nil {
				n = -1
			}
			values[a.Key] = n
		}
	}
	return values
}

func (c *collector) config() Config {
	return Config{Name: "collector", Type: OTLP, URL: c.URL, From: FromStart}
}

func TestCollectorGetsEveryFieldOfARecord(t *testing.T) {
	c, l := newCollector(t), newLog(t, audit.Options{})
	at := time.Date(2026, 11, 24, 9, 30, 0, 123456789, time.UTC)
	for _, e := range []audit.Event{
		{
			Time: at, Kind: audit.KindDecision, Request: "rq-1", Principal: "corp/8a7f3c", Decision: audit.Deny, Status: 403,
			BytesIn: 1 << 60, Detail: map[string]string{"refused": `<"é">`},
		},
		{Time: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), Kind: audit.KindSession, Session: "s-1"},
	} {
		if err := l.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	start(t, l.options(), c.config())
	c.wait(t, len(l.lines(t)))
	c.want(t, l.lines(t))
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.last[len(c.last)-2]
	if want := strconv.FormatInt(at.UnixNano(), 10); got.Time != want || got.Observed != want || got.Severity != "13WARN" || got.Event != "iap.decision" {
		t.Errorf("%+v", got)
	}
	for key, want := range map[string]any{
		"iap.seq": int64(2), "iap.kind": "decision", "iap.request": "rq-1", "iap.principal": "corp/8a7f3c", "iap.decision": "deny",
		"iap.status": int64(403), "iap.bytes_in": int64(1 << 60), "iap.detail.refused": `<"é">`, "log.record.uid": origin + "#2", "iap.v": nil, "iap.time": nil,
	} {
		if got.Attributes[key] != want {
			t.Errorf("%s is %v, want %v", key, got.Attributes[key], want)
		}
	}
	if last := c.last[len(c.last)-1]; last.Time != "0" || last.Severity != "9INFO" {
		t.Errorf("%+v", last)
	}
}

// What may be tried again is, and what the server has rejected for good is counted and not sent again.
func TestCollectorIsAskedAgainAndItsRejectionsAreCounted(t *testing.T) {
	c, l := newCollector(t), newLog(t, audit.Options{})
	l.write(t, 20)
	tries := 0
	c.answer = func(w http.ResponseWriter, n int) bool {
		tries++
		switch tries {
		case 1, 2, 3, 4:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader([]int{429, 502, 503, 504}[tries-1])
			return false
		case 5:
			c.take("first", strings.Join(l.lines(t), "\n")+"\n")
			io.WriteString(w, `{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"too old"}}`)
			return false
		}
		return true
	}
	s := start(t, l.options(), c.config())
	c.wait(t, 22) // 20, the segment's first, and one that tells of the rejected
	told := l.lines(t)[21]
	if e, err := audit.Parse([]byte(told)); err != nil || e.Reason != ReasonGap || e.Count != 3 || !strings.Contains(e.Message, "too old") {
		t.Error(told, err)
	}
	c.want(t, l.lines(t))
	if state := s.States(t.Context())[0]; state.Failed != 4 || state.Lost != 3 || state.Error != "" {
		t.Errorf("%+v", state)
	}
}

func TestAnswersOfCollectorsAreReadInBothSpellings(t *testing.T) {
	for answer, want := range map[string]int{
		`{"partialSuccess":{"rejectedLogRecords":"3"}}`: 3, `{"partialSuccess":{"rejectedLogRecords":3}}`: 3, `{"partialSuccess":{"rejectedLogRecords":"99"}}`: 10,
		`{"partialSuccess":{"rejectedLogRecords":-1}}`: 0, `{"partialSuccess":{}}`: 0, `{}`: 0, ``: 0, `thanks`: 0, `{"partialSuccess":{"rejectedLogRecords":"x"}}`: 0,
	} {
		if got := partialSuccess([]byte(answer), 10).rejected; got != want {
			t.Errorf("%s: %d", answer, got)
		}
	}
}

func TestCheckingACollectorTriesItsTokenAndSendsNothing(t *testing.T) {
	c := newCollector(t)
	token := ""
	c.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if token = q.Header.Get("Authorization"); token != "Bearer good" {
			http.Error(w, "no such token", http.StatusUnauthorized)
			return
		}
		c.ServeHTTP(w, q)
	})
	config := c.config()
	config.HeadersFile = writeFile(t, "headers", "Authorization: Bearer bad\n")
	if begins, err := Probe(t.Context(), config); !begins || err == nil || !strings.Contains(err.Error(), "401") || !strings.Contains(err.Error(), "no such token") {
		t.Errorf("%v, %v", begins, err)
	}
	config.HeadersFile = writeFile(t, "headers", "Authorization: Bearer good\n")
	if begins, err := Probe(t.Context(), config); !begins || err != nil {
		t.Errorf("%v, %v", begins, err)
	}
	if got := c.lines(); len(got) != 0 || len(c.wrong) != 0 {
		t.Errorf("%v, %v", got, c.wrong)
	}
	for _, bad := range []string{"Authorization", "Au thorization: x", "Authorization: x\x01y"} {
		config.HeadersFile = writeFile(t, "headers", bad)
		if begins, err := Probe(t.Context(), config); begins || err == nil || strings.Contains(err.Error(), "x\x01y") {
			t.Errorf("%q: %v, %v", bad, begins, err)
		}
	}
}

func TestFieldsOfLinesThatAreYetToBeInventedAreKept(t *testing.T) {
	encoded, err := json.Marshal(fields([]byte(`{"v":1,"seq":1,"new":true,"list":[1,{"a":"b"}],"half":1.5,"detail":{"deep":{"er":1}}}`)))
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"key":"iap.seq","value":{"intValue":"1"}},{"key":"iap.new","value":{"boolValue":true}},` +
		`{"key":"iap.list","value":{"stringValue":"[1,{\"a\":\"b\"}]"}},{"key":"iap.half","value":{"stringValue":"1.5"}},` +
		`{"key":"iap.detail.deep","value":{"stringValue":"{\"er\":1}"}}]`
	if !bytes.Equal(encoded, []byte(want)) {
		t.Errorf("%s", encoded)
	}
}
