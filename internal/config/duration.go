package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Duration is a time.Duration written as in Go, 90s, 10m, 12h, or as whole days, 90d.
type Duration time.Duration

// UnmarshalYAML reads the Go form. Negative durations are refused: no setting
// of the product means anything by them.
func (d *Duration) UnmarshalYAML(node ast.Node) error {
	text := node.String()
	if s, ok := node.(*ast.StringNode); ok {
		text = s.Value
	}
	v, err := parseDuration(text)
	if err != nil || v < 0 {
		return &Error{Line: node.GetToken().Position.Line, Text: fmt.Sprintf("%q is no duration: write 90s, 10m, 12h or 30d", text)}
	}
	*d = Duration(v)
	return nil
}

// maxDays keeps a duration within what a time.Duration can be.
const maxDays = 36500

func parseDuration(text string) (time.Duration, error) {
	days, ok := strings.CutSuffix(text, "d")
	if !ok {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err == nil && n > maxDays {
		err = strconv.ErrRange
	}
	return time.Duration(n) * 24 * time.Hour, err
}

// MarshalText writes the Go form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }
