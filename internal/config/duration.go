package config

import (
	"fmt"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Duration is a time.Duration written as in Go: 90s, 10m, 12h.
type Duration time.Duration

// UnmarshalYAML reads the Go form. Negative durations are refused: no setting
// of the product means anything by them.
func (d *Duration) UnmarshalYAML(node ast.Node) error {
	text := node.String()
	if s, ok := node.(*ast.StringNode); ok {
		text = s.Value
	}
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 {
		return &Error{Line: node.GetToken().Position.Line, Text: fmt.Sprintf("%q is no duration: write 90s, 10m or 12h", text)}
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes the Go form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }
