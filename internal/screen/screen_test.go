package screen

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestTableFitsTheScreenAndAlignsStyledCells(t *testing.T) {
	var out strings.Builder
	red := Style(func(text string) string { return "\x1b[31m" + text + "\x1b[0m" })
	Table(&out, Styles{}, []string{"ID", "STATE", "WHAT"}, [][]string{
		{"1", red("gone"), "a line that is so long that it does not fit beside the others on a screen of eighty columns\nand one more"},
		{"22", "世界", "short"},
	})
	lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	column := Columns(lines[0][:strings.Index(lines[0], "WHAT")])
	for i, line := range lines {
		if Columns(line) > Width || line != strings.TrimRight(line, " ") {
			t.Errorf("line of %d columns: %q", Columns(line), line)
		}
		if before := Columns(Cut(line, column)); i > 0 && before != column {
			t.Errorf("%q does not begin at column %d", line, column)
		}
	}
	if len(lines) != 5 {
		t.Errorf("%d lines:\n%s", len(lines), out.String())
	}
}

func TestACellOfSeveralLinesStaysInItsColumn(t *testing.T) {
	var b strings.Builder
	Table(&b, Styles{}, []string{"NAME", "STATE", "WHAT"}, [][]string{{"a", "offline\nseen 3s ago", "x"}, {"b", "ok", "y\nz"}, {"c", "ok", ""}})
	want := "NAME  STATE        WHAT\na     offline      x\n      seen 3s ago\nb     ok           y\n                   z\nc     ok\n"
	if b.String() != want {
		t.Errorf("%s", b.String())
	}
}

func TestPairsKeepTheirColumnAndLeaveOutWhatIsEmpty(t *testing.T) {
	var out strings.Builder
	Pairs(&out, Styles{}, 2, [2]string{"A", "one\ntwo"}, [2]string{"much longer", ""}, [2]string{"Bcd", "three"})
	if want := "  A    one\n       two\n  Bcd  three\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func TestTimesAreShort(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.Local)
	for d, want := range map[time.Duration]string{-time.Hour: "0s", 7 * time.Second: "7s", 3 * time.Minute: "3m", 47 * time.Hour: "47h", 50 * time.Hour: "2d"} {
		if got := Ago(now.Add(-d), now); got != want {
			t.Errorf("%s ago: %s", d, got)
		}
	}
	for want, at := range map[string]time.Time{"11:59": now.Add(-time.Minute), "2026-11-22 12:00": now.AddDate(0, 0, -1), "never": {}} {
		if got := Clock(at, now); got != want {
			t.Errorf("%s: %s", at, got)
		}
	}
	if got := fmt.Sprint(Count(1, "session"), ", ", Count(1200, "stream"), ", ", Count(0, "key")); got != "1 session, 1,200 streams, 0 keys" {
		t.Error(got)
	}
}

func TestABarIsEmptyForNothingAndFullForAllAlone(t *testing.T) {
	for _, c := range []struct {
		part, whole int64
		full        int
	}{{0, 100, 0}, {1, 1000000, 1}, {50, 100, 5}, {999999, 1000000, 9}, {100, 100, 10}, {140, 100, 10}, {0, 0, 10}, {1 << 50, 1 << 51, 5}} {
		if got := Bar(c.part, c.whole); strings.Count(got, "█") != c.full || Columns(got) != barColumns {
			t.Errorf("%d of %d: %s", c.part, c.whole, got)
		}
	}
}

func TestAmountsAreGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -12: "-12", -123: "-123", -1234: "-1,234"} {
		if got := Grouped(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}
