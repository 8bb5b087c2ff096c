package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/charmbracelet/lipgloss"
	"github.com/mattn/go-isatty"
	"github.com/muesli/termenv"

	"iap/internal/screen"
)

const screenWidth = screen.Width

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
	screen.Pairs(w, s.screen(), indent, list...)
}

// table prints rows under a heading; the last column is wrapped to the screen's width.
func (a *app) table(heading []string, rows [][]string) {
	screen.Table(a.out, a.ui.out.screen(), heading, rows)
}

func (s styles) screen() screen.Styles {
	style := func(s lipgloss.Style) screen.Style { return func(text string) string { return s.Render(text) } }
	return screen.Styles{Bold: style(s.bold), Dim: style(s.dim), Good: style(s.good), Bad: style(s.bad)}
}

func wrap(text string, width int) []string { return screen.Wrap(text, width) }

// clock shows a time as a person reads it: the hour today, the date otherwise.
func clock(t time.Time) string { return screen.Clock(t, time.Now()) }

// ago shows how long something has lasted, coarsely.
func ago(d time.Duration) string { return screen.Lasted(d) }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
