package console

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"iap/internal/admin"
	"iap/internal/plaintext"
	"iap/internal/screen"
)

// record is what a line shows of a record of the audit log.
type record struct {
	Seq       uint64            `json:"seq"`
	Time      time.Time         `json:"time"`
	Kind      string            `json:"kind"`
	Principal string            `json:"principal"`
	Agent     string            `json:"agent"`
	Resource  string            `json:"resource"`
	Action    string            `json:"action"`
	Model     string            `json:"model"`
	Source    string            `json:"source"`
	Decision  string            `json:"decision"`
	Reason    string            `json:"reason"`
	Ended     string            `json:"ended"`
	Status    int               `json:"status"`
	TokensIn  int64             `json:"tokens_in"`
	TokensOut int64             `json:"tokens_out"`
	Duration  int64             `json:"duration_ms"`
	Count     int64             `json:"count"`
	Detail    map[string]string `json:"detail"`
}

const (
	whoColumns    = 16
	actionColumns = 13
)

func (c *Console) printLine(w io.Writer, e admin.AuditEvent) {
	var r record
	if err := json.Unmarshal(e, &r); err != nil {
		fmt.Fprintln(w, "a record that cannot be read")
		return
	}
	fmt.Fprintln(w, c.lineOf(r))
}

// lineOf is a record as one line: when, the verdict, who, what, on what, why. Each
// word keeps its column where those before it are short enough.
func (c *Console) lineOf(r record) string {
	s := c.host.Styles()
	at, now := r.Time.Local(), time.Now()
	clock := at.Format(time.TimeOnly)
	if at.YearDay() != now.YearDay() || at.Year() != now.Year() {
		clock = at.Format("2006-01-02 15:04:05")
	}
	who := r.Principal
	if who == "" && r.Agent != "" {
		who = short(r.Agent)
	}
	if who == "" {
		who = r.Source
	}
	return strings.TrimRight(s.Dim.Render(clock)+" "+c.verdict(r)+" "+column(who, whoColumns)+" "+column(r.act(), actionColumns)+" "+plaintext.Clean(r.about()), " ")
}

func column(text string, width int) string {
	if text == "" {
		text = "-"
	}
	return screen.Pad(plaintext.Clean(text), width)
}

// verdict is what was decided, or of what is no decision its kind.
func (c *Console) verdict(r record) string {
	const width = 7
	s := c.host.Styles()
	switch word := plaintext.Clean(r.Decision); {
	case word == "allow":
		return s.Good.Render(screen.Pad(word, width))
	case word != "":
		return s.Bad.Render(screen.Pad(word, width))
	case r.Kind == "outcome":
		return s.Dim.Render(screen.Pad("done", width))
	default:
		return s.Dim.Render(screen.Pad(plaintext.Clean(r.Kind), width))
	}
}

// act is what was done, and of what has no action what became of it.
func (r record) act() string {
	switch {
	case r.Action != "":
		return r.Action
	case r.Kind == "login":
		return r.Kind
	default:
		return cmp.Or(r.Reason, r.Kind)
	}
}

// about is what it was done to, and why it went so.
func (r record) about() string {
	var words []string
	add := func(text string) {
		if text != "" {
			words = append(words, text)
		}
	}
	add(strings.TrimSuffix(r.Resource+"/"+r.Model, "/"))
	add(target(r.Detail["target"]))
	if r.Reason != "allowed" && r.Reason != r.act() {
		add(r.Reason)
	}
	if r.Count > 0 {
		add(fmt.Sprintf("%d times", r.Count))
	}
	if r.Kind == "outcome" {
		if r.Status > 0 {
			add(fmt.Sprint(r.Status))
		}
		if r.TokensIn+r.TokensOut > 0 {
			add(fmt.Sprintf("%d+%d tokens", r.TokensIn, r.TokensOut))
		}
		add((time.Duration(r.Duration) * time.Millisecond).String())
		add(r.Ended)
	}
	if why := r.Detail["reason"]; why != "" {
		add("(" + why + ")")
	}
	return strings.Join(words, " ")
}
