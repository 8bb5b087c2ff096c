package console

import (
	"strings"
	"testing"
	"time"

	"iap/internal/admin"
	"iap/internal/screen"
)

// usageSample is a report with what is hard to show.
func usageSample() admin.UsageReport {
	from := time.Date(2026, 11, 16, 23, 0, 0, 0, time.UTC)
	r := admin.UsageReport{
		From: from, To: from.Add(7*24*time.Hour + 20*time.Minute), By: "principal", Per: "day",
		Total: admin.UsageSum{Requests: 12345, Denied: 17, Errors: 3, Cancelled: 40, TokensIn: 4_100_000, TokensOut: 12_300_000, DurationMS: 45_000_000, TTFTP50MS: 180, TTFTP95MS: 2400},
		Rows: []admin.UsageRow{
			{Name: "corp/alice", UsageSum: admin.UsageSum{Requests: 12000, TokensIn: 4_000_000, TokensOut: 12_000_000, TTFTP50MS: 170, TTFTP95MS: 2400}},
			{Name: "ci/repo:org/project:ref:refs/heads/main", UsageSum: admin.UsageSum{Requests: 300, Cancelled: 40, TokensIn: 100_000, TokensOut: 300_000, TTFTP50MS: 200, TTFTP95MS: 61_000}},
			{Name: "corp/\x1b[31mmallory", UsageSum: admin.UsageSum{Denied: 17}},
		},
		Others: &admin.UsageSum{Requests: 45, Errors: 3, TokensOut: 90_000_000}, OtherRows: 2,
	}
	for i := range 7 {
		r.Points = append(r.Points, admin.UsagePoint{Start: from.Truncate(24 * time.Hour).Add(time.Duration(i+1) * 24 * time.Hour), UsageSum: admin.UsageSum{Requests: int64(i), TokensOut: int64(i * 1000)}})
	}
	return r
}

const usagePlain = `Everybody, 2026-11-16 23:00 to 2026-11-23 23:20 UTC
PRINCIPAL                  REQS    IN   OUT    P50   P95  DENIED   ERR  LEFT
corp/alice         ######   12k  4.0M   12M  170ms  2.4s       0     0     0
ci/repo:org/project:ref:refs/heads/main
                   #        300  100k  300k  200ms  1.0m       0     0    40
corp/\ufffd[31mmallory             0     0     0      -     -      17     0     0
2 others                     45     0   90M      -     -       0     3     0
total                       12k  4.1M   12M  180ms  2.4s      17     3    40

 .:=+*#
a column is 1 day

DAY                 REQS    IN   OUT    P50   P95  DENIED   ERR  LEFT
`

func TestUsageFitsTheScreenAndItsFiguresStandBelowEachOther(t *testing.T) {
	for _, blocks := range []bool{false, true} {
		var out strings.Builder
		printUsage(&out, screen.Styles{}, usageSample(), blocks)
		text := out.String()
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			if screen.Columns(line) > screen.Width || line != strings.TrimRight(line, " ") {
				t.Errorf("a line of %d columns: %q", screen.Columns(line), line)
			}
			if strings.Contains(line, "\x1b") {
				t.Errorf("a name acts on the terminal: %q", line)
			}
			if !blocks && strings.ContainsAny(line, "█▏▁") {
				t.Errorf("blocks: %q", line)
			}
		}
		if want := strings.ReplaceAll(usagePlain, `\ufffd`, "\ufffd"); !blocks && !strings.HasPrefix(text, want) {
			t.Errorf("got\n%s\nwant\n%s", text, want)
		}
		if blocks && (!strings.Contains(text, "██████") || !strings.Contains(text, "▂▃▅▆▇█")) {
			t.Errorf("no blocks in\n%s", text)
		}
	}
}

func TestUsageOfNothingSaysSo(t *testing.T) {
	var out strings.Builder
	r := admin.UsageReport{From: time.Unix(0, 0), To: time.Unix(3600, 0), By: "\x1b[2J", Who: "corp/alice", Resource: "phi3", Incomplete: true}
	printUsage(&out, screen.Styles{}, r, true)
	if text := out.String(); !strings.HasPrefix(text, "corp/alice, phi3, 1970-01-01 00:00 to 1970-01-01 01:00 UTC\nNothing was used.\n") || !strings.Contains(text, "cannot be read") || strings.Contains(text, "\x1b") {
		t.Errorf("%s", text)
	}
}

func TestALineOfPointsNeverGrowsBeyondTheScreen(t *testing.T) {
	r := usageSample()
	for span, want := range map[time.Duration]int{time.Hour: 1, 100 * time.Hour: 50, 336 * time.Hour: 68, 1 << 62: 0, -time.Hour: 0} {
		r.To = r.From.Add(span)
		if values, _ := sparkValues(r, time.Hour); len(values) != want {
			t.Errorf("%s: %d columns, want %d", span, len(values), want)
		}
	}
}
