package audit

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func encoded(e Event) []byte {
	var n line
	n.encode(&e)
	at := n.at
	if at.IsZero() {
		at = time.Unix(1_800_000_000, 5)
	}
	return bytes.Clone(n.seal(e.Seq, at, e.Mono))
}

// fullEvent has every field set, by reflection: a field that the encoder forgets makes the round trip fail.
func fullEvent(text string, number int64) Event {
	var e Event
	v := reflect.ValueOf(&e).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString(text)
		case reflect.Int, reflect.Int64:
			f.SetInt(number)
		case reflect.Uint64:
			f.SetUint(math.MaxUint64)
		}
	}
	e.Time = time.Date(2026, 11, 23, 17, 5, 0, 123456789, time.UTC)
	e.Detail = map[string]string{"a": text, "b/c": "x"}
	return e
}

func TestEveryFieldIsReadBackAsWritten(t *testing.T) {
	for _, text := range []string{"plain", `quo"te\`, "new\nline\ttab\x00\x1b[31m\x7f", "ünï 🦙", "\u202eabc\u2028\u0085\U000e0001"} {
		for _, number := range []int64{1, -1, math.MaxInt64, math.MinInt64} {
			want := fullEvent(text, number)
			got, err := parse(encoded(want))
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("wrote %+v\nread %+v", want, got)
			}
		}
	}
}

func TestEmptyFieldsAreLeftOut(t *testing.T) {
	got := string(encoded(Event{Seq: 7, Kind: "login", Time: time.Unix(0, 0), Mono: 3}))
	if want := `{"v":1,"seq":7,"time":"1970-01-01T00:00:00Z","mono":3,"kind":"login"}` + "\n"; got != want {
		t.Errorf("got %s", got)
	}
}

func TestLinesShowNothingThatDoesNotPrint(t *testing.T) {
	line := encoded(Event{Kind: "login", Message: "\x00\x1b\u202e\u2066\u2028\x7f\u0085\ufeff\xff\xfe", Path: "a\nb"})
	if !utf8.Valid(line) || bytes.Count(line, []byte("\n")) != 1 {
		t.Errorf("line %q", line)
	}
	for _, bad := range []string{"\x00", "\x1b", "\u202e", "\u2066", "\u2028", "\x7f", "\u0085", "\ufeff"} {
		if bytes.Contains(line, []byte(bad)) {
			t.Errorf("%q stands raw in %q", bad, line)
		}
	}
}

func TestLongestRecordFitsALine(t *testing.T) {
	for _, text := range []string{"x", "\x00", "\U000e0001", "é", "\xff"} {
		e := fullEvent(strings.Repeat(text, 5000), math.MinInt64)
		for i := range 40 {
			e.Detail[strings.Repeat(text, 500)+string(rune('a'+i))] = strings.Repeat(text, 5000)
		}
		line := encoded(e)
		if len(line) > MaxLine {
			t.Errorf("%d bytes of %q", len(line), text)
		}
		got, err := parse(line)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if len(got.Detail) != maxDetails || !strings.HasSuffix(got.Message, "…") {
			t.Errorf("%q: %d details, message ends %q", text, len(got.Detail), got.Message[len(got.Message)-5:])
		}
	}
}

func TestTextIsCutAtCharacters(t *testing.T) {
	for limit := 3; limit < 40; limit++ {
		for _, s := range []string{"", "abcdef", "ééééééééé", "a\x00b\x00c\x00d\x00", "🦙🦙🦙🦙🦙🦙🦙🦙🦙🦙🦙🦙"} {
			b := appendText(nil, s, limit)
			var back string
			if err := json.Unmarshal(b, &back); err != nil || !utf8.ValidString(back) || len(b)-2 > limit {
				t.Fatalf("limit %d of %q gave %s, %v", limit, s, b, err)
			}
			if cut, ok := strings.CutSuffix(back, "…"); back != s && (!ok || !strings.HasPrefix(s, cut)) {
				t.Errorf("limit %d of %q gave %q", limit, s, back)
			}
		}
	}
}

func FuzzEveryEventMakesOneReadableLine(f *testing.F) {
	f.Add("decision", "request", "path/\x00", "detail", "value", int64(5))
	f.Add("", "\xff", strings.Repeat("\u202e", 1000), "1:", strings.Repeat("a", 600), int64(-1))
	f.Fuzz(func(t *testing.T, kind, request, path, name, value string, number int64) {
		e := Event{
			Seq: 1, Kind: kind, Request: request, Path: path, Message: value, BytesIn: number,
			Detail: map[string]string{name: value, name + "\x00": request, "0:" + name: path},
		}
		line := encoded(e)
		if len(line) > MaxLine || bytes.IndexByte(line, '\n') != len(line)-1 {
			t.Fatalf("not one line: %q", line)
		}
		got, err := parse(line)
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if got.BytesIn != number || len(got.Detail) != len(e.Detail) {
			t.Errorf("read %+v from %s", got, line)
		}
		if valid := utf8.ValidString(request) && len(request) < shortText/6; valid && got.Request != request {
			t.Errorf("request %q became %q", request, got.Request)
		}
	})
}
