package console

import (
	"fmt"
	"io"
	"strings"
	"time"

	"iap/internal/admin"
	"iap/internal/plaintext"
	"iap/internal/screen"
)

const (
	usageBar    = 6  // columns of a row's bar
	usageSpark  = 72 // columns of the line of points at most
	usageIndent = 2  // of figures below a name that is too long to stand beside them
)

// printUsage shows a report for people: a line that says what it is about, a table
// of rows, and how it went, if that was asked for.
func printUsage(w io.Writer, s screen.Styles, r admin.UsageReport, blocks bool) {
	t := usageTable{w: w, styles: s, blocks: blocks}
	r.By, r.Per = plaintext.Clean(r.By), plaintext.Clean(r.Per) // the relay's words
	fmt.Fprintln(w, s.Dim.Render(usageSubject(r)))
	if r.Total.Requests+r.Total.Denied == 0 {
		fmt.Fprintln(w, "Nothing was used.")
		t.remarks(r)
		return
	}
	for _, row := range r.Rows {
		t.add(plaintext.Clean(row.Name), row.UsageSum)
	}
	t.barred = len(t.sums)
	if r.Others != nil {
		t.add(screen.Count(r.OtherRows, "other"), *r.Others)
	}
	t.print(strings.ToUpper(r.By), &r.Total, true)
	if len(r.Points) > 0 {
		fmt.Fprintln(w)
		printPoints(w, s, r, blocks)
	}
	t.remarks(r)
}

// usageSubject says whose usage of what it is, and when.
func usageSubject(r admin.UsageReport) string {
	who := "Everybody"
	if r.Who != "" {
		who = plaintext.Clean(r.Who)
	}
	about := []string{who}
	for _, one := range []string{r.Resource, r.Model} {
		if one != "" {
			about = append(about, plaintext.Clean(one))
		}
	}
	const layout = "2006-01-02 15:04"
	return fmt.Sprintf("%s, %s to %s UTC", strings.Join(about, ", "), r.From.UTC().Format(layout), r.To.UTC().Format(layout))
}

func (t *usageTable) remarks(r admin.UsageReport) {
	if r.Total.DurationMS > 0 {
		together := time.Duration(r.Total.DurationMS) * time.Millisecond
		fmt.Fprintf(t.w, "Requests ran for %s, added up. P50 and P95 are times to the first token.\n", screen.Brief(together))
	}
	if r.By == "group" && len(r.Rows) > 1 {
		fmt.Fprintln(t.w, "A request counts in each group of its caller: rows add up to more than the total.")
	}
	if r.Incomplete {
		fmt.Fprintln(t.w, "Some of what was kept cannot be read: there was more. The relay's log says why.")
	}
}

// usageTable is rows of figures behind names.
type usageTable struct {
	w      io.Writer
	styles screen.Styles
	blocks bool
	names  []string
	sums   []admin.UsageSum
	barred int // the first rows, which bars compare: what many used together is none of them
}

func (t *usageTable) add(name string, sum admin.UsageSum) {
	t.names, t.sums = append(t.names, name), append(t.sums, sum)
}

// usageWeight is what a bar shows: tokens, and of what has none requests.
func usageWeight(sum, total *admin.UsageSum) int64 {
	if total.TokensIn+total.TokensOut > 0 {
		return sum.TokensIn + sum.TokensOut
	}
	return sum.Requests + sum.Denied
}

// print shows the rows, and the total below them. A name that is too long to stand
// beside its figures has a line of its own.
func (t *usageTable) print(heading string, total *admin.UsageSum, withTotal bool) {
	figures := t.figures(total)
	names := t.names
	if withTotal {
		names = append(names, "total")
		figures = append(figures, strings.Repeat(" ", usageBar+2)+usageFigures(*total))
	}
	head := strings.Repeat(" ", usageBar+2) + usageHeading
	room := screen.Width - screen.Columns(head) - 2
	width := screen.Columns(heading)
	for _, name := range names {
		if n := screen.Columns(name); n <= room {
			width = max(width, n)
		}
	}
	fmt.Fprintln(t.w, t.styles.Dim.Render(screen.Pad(heading, width+2)+head))
	for i, name := range names {
		if screen.Columns(name) > room {
			fmt.Fprintln(t.w, name)
			name = strings.Repeat(" ", usageIndent)
		}
		line := screen.Pad(name, width+2) + figures[i]
		if i == len(t.sums) {
			line = t.styles.Bold.Render(line)
		}
		fmt.Fprintln(t.w, line)
	}
}

// figures are the rows behind their names.
func (t *usageTable) figures(total *admin.UsageSum) []string {
	var most int64
	for i := range t.barred {
		most = max(most, usageWeight(&t.sums[i], total))
	}
	all := make([]string, len(t.sums), len(t.sums)+1)
	for i, sum := range t.sums {
		bar := ""
		if i < t.barred {
			bar = screen.Meter(usageWeight(&sum, total), most, usageBar, t.blocks)
		}
		rest := strings.Repeat(" ", usageBar-screen.Columns(bar)+2)
		if bar != "" {
			bar = t.styles.Good.Render(bar)
		}
		all[i] = bar + rest + usageFigures(sum)
	}
	return all
}

// usageHeading stands above usageFigures: P50 and P95 are times to the first token.
const usageHeading = "REQS    IN   OUT    P50   P95  DENIED   ERR  LEFT"

func usageFigures(s admin.UsageSum) string {
	p50, p95 := "-", "-"
	if s.TTFTP95MS > 0 {
		p50, p95 = screen.Brief(time.Duration(s.TTFTP50MS)*time.Millisecond), screen.Brief(time.Duration(s.TTFTP95MS)*time.Millisecond)
	}
	return fmt.Sprintf("%4s  %4s  %4s  %5s %5s  %6s  %4s  %4s", screen.Amount(s.Requests), screen.Amount(s.TokensIn), screen.Amount(s.TokensOut),
		p50, p95, screen.Amount(s.Denied), screen.Amount(s.Errors), screen.Amount(s.Cancelled))
}

// printPoints shows the points as one line, and each that has something in it as a
// row.
func printPoints(w io.Writer, s screen.Styles, r admin.UsageReport, blocks bool) {
	width, layout := usageWidth(r.Per)
	t := usageTable{w: w, styles: s, blocks: blocks}
	for _, p := range r.Points {
		t.add(p.Start.UTC().Format(layout), p.UsageSum)
	}
	t.barred = len(t.sums)
	if values, each := sparkValues(r, width); len(values) > 1 {
		fmt.Fprintf(w, "%s\n%s\n\n", s.Good.Render(strings.TrimRight(screen.Spark(values, blocks), " ")), s.Dim.Render("a column is "+screen.Count(each, r.Per)))
	}
	t.print(strings.ToUpper(r.Per), &r.Total, false)
}

func usageWidth(per string) (time.Duration, string) {
	switch per {
	case "minute":
		return time.Minute, "15:04"
	case "hour":
		return time.Hour, "Mon 2 Jan 15h"
	}
	return 24 * time.Hour, "Mon 2 Jan"
}

// sparkValues spreads the points evenly over the time that they are about, as many
// of them in a column as it takes.
func sparkValues(r admin.UsageReport, width time.Duration) (values []int64, each int) {
	span := int((r.To.Sub(r.From) + width - 1) / width)
	if span < 1 || span > 100_000 { // it is the relay that says so
		return nil, 0
	}
	each = (span + usageSpark - 1) / usageSpark
	values = make([]int64, (span+each-1)/each)
	for i := range r.Points {
		at := int(r.Points[i].Start.Sub(r.From)/width) / each
		if at >= 0 && at < len(values) {
			values[at] += usageWeight(&r.Points[i].UsageSum, &r.Total)
		}
	}
	return values, each
}
