package config

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Bytes is an amount of bytes written with its unit: 512KiB, 64MiB, 1GiB.
type Bytes int64

// UnmarshalYAML reads a number with a unit.
func (b *Bytes) UnmarshalYAML(node ast.Node) error {
	text := node.String()
	if s, ok := node.(*ast.StringNode); ok {
		text = s.Value
	}
	for unit, size := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		digits, ok := strings.CutSuffix(text, unit)
		if n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 20); ok && err == nil {
			*b = Bytes(int64(n) * size)
			return nil
		}
	}
	return &Error{Line: node.GetToken().Position.Line, Text: fmt.Sprintf("%q is no size: write 512KiB, 64MiB or 1GiB", text)}
}

// MarshalText writes the largest unit that fits.
func (b Bytes) MarshalText() ([]byte, error) {
	switch {
	case b%(1<<30) == 0 && b > 0:
		return fmt.Appendf(nil, "%dGiB", b>>30), nil
	case b%(1<<20) == 0:
		return fmt.Appendf(nil, "%dMiB", b>>20), nil
	}
	return fmt.Appendf(nil, "%dKiB", b>>10), nil
}
