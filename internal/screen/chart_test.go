package screen

import (
	"math"
	"testing"
	"time"
)

func TestAmountsAndDurationsFitTheirColumns(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 999: "999", 1000: "1.0k", 1234: "1.2k", 9949: "9.9k", 9951: "10k", 99999: "100k", 999_499: "999k", 999_500: "1.0M", 45_000_000: "45M", math.MaxInt64: "9.2E",
	} {
		if got := Amount(n); got != want || len(got) > 4 {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0ms", 999 * time.Millisecond: "999ms", 1200 * time.Millisecond: "1.2s", 45 * time.Second: "45s", 150 * time.Second: "2.5m", 12 * time.Hour: "12h",
	} {
		if got := Brief(d); got != want || len(got) > 5 {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
}

func TestOnlyNothingIsAnEmptyBar(t *testing.T) {
	for _, c := range []struct {
		part, whole int64
		blocks      string
		plain       string
	}{
		{0, 10, "", ""},
		{1, 1_000_000, "▏", "#"},
		{5, 10, "███", "###"},
		{10, 10, "██████", "######"},
		{20, 10, "██████", "######"},
		{5, 0, "", ""},
		{51, 120, "██▌", "###"},
	} {
		if blocks, plain := Meter(c.part, c.whole, 6, true), Meter(c.part, c.whole, 6, false); blocks != c.blocks || plain != c.plain {
			t.Errorf("%d of %d: %q %q", c.part, c.whole, blocks, plain)
		}
	}
	values := []int64{0, 1, 500, 1000}
	if blocks, plain := Spark(values, true), Spark(values, false); blocks != " ▁▅█" || plain != " _=#" {
		t.Errorf("%q %q", blocks, plain)
	}
	if Spark(nil, true) != "" || Spark([]int64{0}, true) != " " {
		t.Error("nothing is something")
	}
}

func TestBlocksAreForTerminalsThatHaveThem(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want bool
	}{
		{map[string]string{"LANG": "en_US.UTF-8", "TERM": "xterm"}, true},
		{map[string]string{"LANG": "en_US.UTF-8", "LC_ALL": "C"}, false},
		{map[string]string{"LC_CTYPE": "de_DE.utf8"}, true},
		{map[string]string{"LANG": "en_US.UTF-8", "TERM": "linux"}, false},
		{nil, false},
	} {
		if got := Blocks(func(name string) string { return c.env[name] }); got != c.want {
			t.Errorf("%v: %v", c.env, got)
		}
	}
}
