package filter

import (
	"errors"
	"strings"
	"testing"
)

const line = `{"v":1,"seq":7,"time":"2026-11-23T12:00:00Z","mono":5,"kind":"outcome","principal":"corp/alice","resource":"phi3",` +
	`"model":"phi3:mini","status":200,"bytes_out":4096,"ttft_ms":120,"tokens_in":900,"tokens_out":1800,"detail":{"tried":"a1 queue_full"}}`

func TestExpressionsSeeTheSchema(t *testing.T) {
	for text, want := range map[string]bool{
		`tokens_out > 1000`:                                             true,
		`tokens_in + tokens_out < 2700`:                                 false,
		`principal in ["corp/alice", "corp/bob"] && status == 200`:      true,
		`model startsWith "phi3:"`:                                      true,
		`resource matches "^llama"`:                                     false,
		`detail.tried contains "queue_full"`:                            true,
		`detail.nothing == ""`:                                          true,
		`decision == ""`:                                                true,
		`time >= date("2026-11-23T11:00:00Z") && time.Hour() == 12`:     true,
		`time.Weekday().String() in ["Saturday", "Sunday"]`:             false,
		`seq % 7 == 0 and not (ttft_ms > 200)`:                          true,
		`any(["chat", "embed"], # == action)`:                           false,
		`bytes_out / 1024 == 4`:                                         true,
		`lower(principal) contains "ALICE" or upper(kind) == "OUTCOME"`: true,
	} {
		f, err := New(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for range 2 { // what one record left behind is not the next one's
			if got, err := f.Match([]byte(line)); err != nil || got != want {
				t.Errorf("%s: %v, %v", text, got, err)
			}
		}
	}
}

func TestARecordLeavesNothingForTheNext(t *testing.T) {
	f, err := New(`detail.tried != "" || tokens_out > 0 || principal != ""`)
	if err != nil {
		t.Fatal(err)
	}
	bare := []byte(`{"v":1,"seq":8,"time":"2026-11-23T12:00:00Z","mono":6,"kind":"relay"}`)
	for _, one := range []struct {
		line []byte
		want bool
	}{{[]byte(line), true}, {bare, false}, {[]byte(line), true}} {
		if got, err := f.Match(one.line); err != nil || got != one.want {
			t.Errorf("%s: %v, %v", one.line, got, err)
		}
	}
}

func TestMistakesAreNamedBeforeAnythingIsRead(t *testing.T) {
	for text, want := range map[string]string{
		``:                          "column 1",
		`tokens > 5`:                "column 1: unknown name tokens",
		`status == 200 && princ`:    "column 18: unknown name princ",
		`status == "200"`:           "mismatched types",
		`principal`:                 "expected bool",
		`status = 200`:              "column 8",
		`detail.tried > 3`:          "mismatched types",
		`matches(`:                  "column",
		"status == 200 &&\nfoo > 1": "line 2, column 1: unknown name foo",
	} {
		_, err := New(text)
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := New(strings.Repeat("!", MaxLength+1)); err == nil {
		t.Error("an expression without bounds")
	}
}

func TestWhatARecordCannotAnswerIsAnError(t *testing.T) {
	f, err := New(`1 % tokens_in == 0`)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Match([]byte(`{"v":1,"seq":9,"time":"2026-11-23T12:00:00Z","mono":5,"kind":"relay"}`))
	if err == nil || !strings.Contains(err.Error(), "record 9") {
		t.Errorf("%v", err)
	}
	if _, err := f.Match([]byte(`no record`)); err == nil {
		t.Error("a line that is none was judged")
	}
}

// Nothing that is accepted runs longer than its length and the record's allow.
func TestExpressionsThatCouldRunLongAreRefused(t *testing.T) {
	nested := "true"
	for range 12 {
		nested = `all(["a","b","c","d"], ` + nested + `)`
	}
	for _, text := range []string{
		`len(map(1..100000000, # * 2)) > 0`, `all(1..1000000, {all(1..1000000, true)})`, `status in 1..599`, nested, `repeat(message, 9999) == ""`,
		`replace(message, "", message) == ""`, `message matches model`, `let x = message + message; x == ""`, `true; true`, `{"a": true}.a`,
		`any(split(message, ""), # == "a")`, `fromJSON(facts) == 1`, strings.Repeat("true or ", maxNodes) + "true", strings.Repeat("(", MaxLength),
	} {
		_, err := New(text)
		var syntax *SyntaxError
		if !errors.As(err, &syntax) || syntax.Line != 1 || syntax.Column < 1 {
			t.Errorf("%.60s: %v", text, err)
		}
	}
}

// Whatever is typed is refused, or answers for a record.
func FuzzFilter(f *testing.F) {
	for _, seed := range []string{`status >= 500 and resource == "phi3"`, `detail.target matches "^c"`, `time > date("2026-11-24")`, `message[1:2] ?? nil`, `any([1, 2], # == status)`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if filter, err := New(text); err == nil {
			_, _ = filter.Match([]byte(line))
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	f, err := New(`tokens_out > 1000 && resource == "phi3"`)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if ok, err := f.Match([]byte(line)); !ok || err != nil {
			b.Fatal(err)
		}
	}
}
