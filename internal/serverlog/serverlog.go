// Package serverlog makes the loggers of the two servers. It exists so that
// relay and agent offer the same formats under the same flags.
package serverlog

import (
	"fmt"
	"log/slog"
	"os"
)

// Usage describes the format flag.
const Usage = "log format: text, json, or auto (text on a terminal)"

// New writes to w: text for people, JSON for machines. The format auto asks
// whether w is a terminal.
func New(w *os.File, format string, verbose bool) (*slog.Logger, error) {
	options := &slog.HandlerOptions{Level: slog.LevelInfo}
	if verbose {
		options.Level = slog.LevelDebug
	}
	if format == "auto" {
		format = "json"
		if info, err := w.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			format = "text"
		}
	}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	}
	return nil, fmt.Errorf("--log: %q is none of text, json, auto", format)
}
