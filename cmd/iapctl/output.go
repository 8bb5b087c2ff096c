package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/charmbracelet/lipgloss"
	"github.com/mattn/go-isatty"
	"github.com/muesli/termenv"
)

const (
	screenWidth = 80
	columnGap   = 2
)

// ui styles text. Each stream has its own renderer: one may be a terminal while the other is a file.
type ui struct {
	out, err styles
	spin     bool // stderr is a terminal: spinners may turn
}

type styles struct{ plain, bold, dim, good, bad lipgloss.Style }

func (a *app) newUI() ui {
	plain := a.noColor || a.env("NO_COLOR") != "" || a.env("TERM") == "dumb" || a.output == "json"
	return ui{
		out:  stylesFor(a.out, plain),
		err:  stylesFor(a.err, plain),
		spin: !plain && terminal(a.err),
	}
}

func stylesFor(w io.Writer, plain bool) styles {
	r := lipgloss.NewRenderer(w)
	s := r.NewStyle
	r.SetColorProfile(termenv.ANSI)
	if plain || !terminal(w) {
		r.SetColorProfile(termenv.Ascii)
		return styles{plain: s(), bold: s(), dim: s(), good: s(), bad: s()}
	}
	return styles{
		plain: s(), bold: s().Bold(true), dim: s().Faint(true),
		good: s().Foreground(lipgloss.Color("2")), bad: s().Foreground(lipgloss.Color("1")).Bold(true),
	}
}

func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && (isatty.IsTerminal(f.Fd()) || isatty.IsCygwinTerminal(f.Fd()))
}

// say prints narration.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.err, format+"\n", args...) }

// remark says what people should see at once, wrapped to the screen's width.
func (a *app) remark(text string) {
	mark := a.ui.err.bad.Render("!")
	for _, line := range wrap(text, screenWidth-2) {
		a.say("%s %s", mark, line)
		mark = " "
	}
}

// json prints a document, if that is the form asked for, and reports whether it was.
func (a *app) json(document any) (bool, error) {
	if a.output != "json" {
		return false, nil
	}
	return true, a.writeJSON(a.out, document)
}

func (a *app) writeJSON(w io.Writer, document any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(document); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// pairs prints lines of a name and a value; a value with line breaks stays in its column, an empty one is left out.
func (a *app) pairs(w io.Writer, s styles, indent int, list ...[2]string) {
	width := 0
	for _, p := range list {
		if p[1] != "" {
			width = max(width, len(p[0]))
		}
	}
	margin := strings.Repeat(" ", indent)
	for _, p := range list {
		if p[1] == "" {
			continue
		}
		name := p[0]
		for _, line := range wrap(p[1], screenWidth-indent-width-columnGap) {
			fmt.Fprintf(w, "%s%s%s\n", margin, s.dim.Render(pad(name, width+columnGap)), line)
			name = ""
		}
	}
}

// table prints rows under a heading; the last column is wrapped to the screen's width.
func (a *app) table(heading []string, rows [][]string) {
	widths := make([]int, len(heading))
	for _, row := range append([][]string{heading}, rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], lipgloss.Width(cell))
		}
	}
	used := 0
	for _, w := range widths[:len(widths)-1] {
		used += w + columnGap
	}
	a.row(a.ui.out.dim, heading, widths, used)
	for _, row := range rows {
		a.row(a.ui.out.plain, row, widths, used)
	}
}

func (a *app) row(style lipgloss.Style, cells []string, widths []int, used int) {
	last := len(cells) - 1
	var front strings.Builder
	for i, cell := range cells[:last] {
		front.WriteString(pad(cell, widths[i]+columnGap))
	}
	lead := front.String()
	for _, line := range wrap(cells[last], max(20, screenWidth-used)) {
		fmt.Fprintln(a.out, style.Render(strings.TrimRight(lead+line, " ")))
		lead = strings.Repeat(" ", used)
	}
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-lipgloss.Width(s)))
}

// wrap breaks text at spaces so that it fits; a word longer than a line stays whole, so that it can be copied.
func wrap(text string, width int) []string {
	var lines []string
	for _, paragraph := range strings.Split(text, "\n") {
		line := ""
		for _, word := range strings.Fields(paragraph) {
			if line != "" && lipgloss.Width(line)+1+lipgloss.Width(word) > width {
				lines = append(lines, line)
				line = ""
			}
			if line != "" {
				line += " "
			}
			line += word
		}
		lines = append(lines, line)
	}
	return lines
}

// clock shows a time as a person reads it: the hour today, the date otherwise.
func clock(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	t = t.Local()
	now := time.Now()
	if t.Year() == now.Year() && t.YearDay() == now.YearDay() {
		return t.Format("15:04")
	}
	return t.Format("2006-01-02 15:04")
}

// ago shows how long something has lasted, coarsely.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "less than a minute"
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
