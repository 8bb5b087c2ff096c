package screen

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// Clock is a time as a person at now reads it: the hour of today, the date otherwise.
func Clock(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	t, now = t.Local(), now.Local()
	if t.Year() == now.Year() && t.YearDay() == now.YearDay() {
		return t.Format("15:04")
	}
	return t.Format("2006-01-02 15:04")
}

// Lasted is how long something has lasted, coarsely and in words.
func Lasted(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "less than a minute"
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 2*day:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// Ago is how long before now a time was, for a column: 7s, 12m, 5h, 3d.
func Ago(t, now time.Time) string {
	d := max(0, now.Sub(t))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 2*day:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d/day))
}

// Count is a number of things: 1 session, 2 sessions.
func Count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%s %ss", Grouped(int64(n)), thing)
}

// Grouped writes an amount with separators: 200,000.
func Grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// barColumns is how wide a Bar is.
const barColumns = 10

// Bar shows a part of a whole: only nothing is empty, and only all is full.
func Bar(part, whole int64) string {
	full := 0
	switch {
	case part >= whole:
		full = barColumns
	case part > 0:
		full = min(max(1, int(float64(part)/float64(whole)*barColumns)), barColumns-1)
	}
	return strings.Repeat("█", full) + strings.Repeat("░", barColumns-full)
}
