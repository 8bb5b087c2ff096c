package main

import (
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/lipgloss"

	"iap/internal/admin"
)

func TestBudgetsSayWhatIsLeftWhenThereIsMoreAndWhoSharesIt(t *testing.T) {
	a, stdout, _ := testApp(t)
	next, all := time.Now().Add(time.Minute), time.Now().Add(time.Hour)
	a.printBudgets([]admin.Budget{
		{
			Grant: "engineers", Per: "group", Who: "corp/ml-eng", Kind: "tokens", Limit: 200000, Window: 86400, Used: 187500, Held: 500, Left: 12000,
			Next: &next, NextLeft: 14000, Resets: &all, Mode: "enforce", Contact: "#ml\x1b[31m",
		},
		{Grant: "engineers", Per: "principal", Who: "corp/ann", Kind: "concurrent", Limit: 4, Held: 1, Left: 3, Mode: "warn"},
	}, false)
	text := stdout.String()
	for _, want := range []string{
		"200,000 tokens/24h", "188,000", "12,000; 14,000 at " + clock(next), "all at " + clock(all), "corp/ml-eng", "more from #ml", "4 at once", "only warned of",
	} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
			t.Errorf("%q is missing from\n%s", want, text)
		}
	}
	if strings.ContainsAny(text, "█░\x1b") || strings.Contains(text, "corp/ann") {
		t.Errorf("what is no terminal gets bars or escapes, or the caller is named:\n%s", text)
	}
	for _, line := range strings.Split(text, "\n") {
		if lipgloss.Width(line) > screenWidth {
			t.Errorf("line of %d columns: %q", lipgloss.Width(line), line)
		}
	}
}

func TestABarIsEmptyForNothingAndFullForAllAlone(t *testing.T) {
	for _, c := range []struct {
		part, whole int64
		full        int
	}{{0, 100, 0}, {1, 1000000, 1}, {50, 100, 5}, {999999, 1000000, 9}, {100, 100, 10}, {140, 100, 10}, {0, 0, 10}, {1 << 50, 1 << 51, 5}} {
		if got := bar(c.part, c.whole); strings.Count(got, "█") != c.full || lipgloss.Width(got) != barWidth {
			t.Errorf("%d of %d: %s", c.part, c.whole, got)
		}
	}
}

func TestAmountsAreGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -12: "-12", -123: "-123", -1234: "-1,234"} {
		if got := grouped(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}
