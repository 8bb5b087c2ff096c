package screen

import (
	"fmt"
	"io"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// Width is what every terminal has.
const Width = 80

const (
	gap      = 2  // between columns
	leastEnd = 20 // of the last column: narrower ones are not worth reading
)

// Style colours a text. The nil Style leaves it as it is.
type Style func(string) string

// Render is text in the style.
func (s Style) Render(text string) string {
	if s == nil {
		return text
	}
	return s(text)
}

// Styles are those that tables and lists use. The zero value is for what is no
// terminal.
type Styles struct{ Bold, Dim, Good, Bad Style }

// Table prints rows under a heading. A cell may have line breaks, which stay in its
// column, and may be styled; the last column is wrapped to the screen's width.
func Table(w io.Writer, s Styles, heading []string, rows [][]string) {
	widths := make([]int, len(heading))
	for _, row := range append([][]string{heading}, rows...) {
		for i, cell := range row {
			for line := range strings.SplitSeq(cell, "\n") {
				widths[i] = max(widths[i], Columns(line))
			}
		}
	}
	used := 0
	for _, width := range widths[:len(widths)-1] {
		used += width + gap
	}
	writeRow(w, s.Dim, heading, widths, used)
	for _, row := range rows {
		writeRow(w, nil, row, widths, used)
	}
}

func writeRow(w io.Writer, style Style, cells []string, widths []int, used int) {
	last := len(cells) - 1
	columns, height := make([][]string, len(cells)), 0
	for i, cell := range cells {
		if columns[i] = strings.Split(cell, "\n"); i == last {
			columns[i] = Wrap(cell, max(leastEnd, Width-used))
		}
		height = max(height, len(columns[i]))
	}
	for n := range height {
		var line strings.Builder
		for i, lines := range columns {
			text := ""
			if n < len(lines) {
				text = lines[n]
			}
			if i < last {
				text = Pad(text, widths[i]+gap)
			}
			line.WriteString(text)
		}
		fmt.Fprintln(w, style.Render(strings.TrimRight(line.String(), " ")))
	}
}

// Pairs prints lines of a name and a value. A value with line breaks stays in its
// column, an empty one is left out with its name.
func Pairs(w io.Writer, s Styles, indent int, list ...[2]string) {
	width := 0
	for _, p := range list {
		if p[1] != "" {
			width = max(width, Columns(p[0]))
		}
	}
	margin := strings.Repeat(" ", indent)
	for _, p := range list {
		if p[1] == "" {
			continue
		}
		name := p[0]
		for _, line := range Wrap(p[1], Width-indent-width-gap) {
			fmt.Fprintf(w, "%s%s%s\n", margin, s.Dim.Render(Pad(name, width+gap)), line)
			name = ""
		}
	}
}

// Columns is how wide text is on a terminal, without what styles it.
func Columns(text string) int { return ansi.StringWidth(text) }

// Pad fills text up with spaces.
func Pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-Columns(text)))
}

// Cut shortens text to a number of columns, with an ellipsis at its end.
func Cut(text string, width int) string { return ansi.Truncate(text, width, "…") }

// Wrap breaks text at spaces so that it fits. A word longer than a line stays
// whole, so that it can be copied.
func Wrap(text string, width int) []string {
	var lines []string
	for _, paragraph := range strings.Split(text, "\n") {
		line := ""
		for _, word := range strings.Fields(paragraph) {
			if line != "" && Columns(line)+1+Columns(word) > width {
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
