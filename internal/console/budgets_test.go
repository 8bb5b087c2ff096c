package console

import (
	"strings"
	"testing"
	"time"

	"iap/internal/admin"
	"iap/internal/screen"
)

func TestBudgetsSayWhatIsLeftWhenThereIsMoreAndWhoSharesIt(t *testing.T) {
	var stdout strings.Builder
	next, all := time.Now().Add(time.Minute), time.Now().Add(time.Hour)
	testConsole(nil).PrintBudgets(&stdout, admin.BudgetList{Budgets: []admin.Budget{
		{
			Grant: "engineers", Per: "group", Who: "corp/ml-eng", Kind: "tokens", Limit: 200000, Window: 86400, Used: 187500, Held: 500, Left: 12000,
			Next: &next, NextLeft: 14000, Resets: &all, Mode: "enforce", Contact: "#ml\x1b[31m",
		},
		{Grant: "engineers", Per: "principal", Who: "corp/ann", Kind: "concurrent", Limit: 4, Held: 1, Left: 3, Mode: "warn"},
	}}, false)
	text := stdout.String()
	for _, want := range []string{
		"200,000 tokens/24h", "188,000", "12,000; 14,000 at " + screen.Clock(next, time.Now()), "all at " + screen.Clock(all, time.Now()), "corp/ml-eng", "more from #ml", "4 at once", "only warned of",
	} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
			t.Errorf("%q is missing from\n%s", want, text)
		}
	}
	if strings.ContainsAny(text, "█░\x1b") || strings.Contains(text, "corp/ann") {
		t.Errorf("what is no terminal gets bars or escapes, or the caller is named:\n%s", text)
	}
	for _, line := range strings.Split(text, "\n") {
		if screen.Columns(line) > screen.Width {
			t.Errorf("line of %d columns: %q", screen.Columns(line), line)
		}
	}
}
