package screen

import (
	"strconv"
	"strings"
	"time"
)

// Blocks reports whether a terminal with these variables shows block characters:
// those of Bar, Meter and Spark.
func Blocks(env func(string) string) bool {
	if env("TERM") == "dumb" || env("TERM") == "linux" { // the console's font has few of them
		return false
	}
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if locale := strings.ToLower(env(name)); locale != "" { // the first that is set decides
			return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
		}
	}
	return false
}

// eighths fill a column from the left, heights one from below.
const (
	eighths      = "▏▎▍▌▋▊▉█"
	heights      = "▁▂▃▄▅▆▇█"
	plainHeights = "_.:-=+*#"
)

// Meter is a bar of at most so many columns that shows part of whole, without
// the rest. Only nothing is empty. Without blocks it is drawn with #.
func Meter(part, whole int64, columns int, blocks bool) string {
	if part <= 0 || whole <= 0 {
		return ""
	}
	share := min(float64(part)/float64(whole), 1) * float64(columns)
	if !blocks {
		return strings.Repeat("#", max(1, int(share+0.5)))
	}
	full := int(share)
	bar := strings.Repeat("█", full)
	if rest := int((share - float64(full)) * 8); rest > 0 || full == 0 {
		bar += string([]rune(eighths)[max(0, rest-1)])
	}
	return bar
}

// Spark draws values side by side, as many columns as there are. Nothing is a
// space, the least of something a mark.
func Spark(values []int64, blocks bool) string {
	marks := []rune(plainHeights)
	if blocks {
		marks = []rune(heights)
	}
	var most int64
	for _, v := range values {
		most = max(most, v)
	}
	var out strings.Builder
	for _, v := range values {
		if v <= 0 {
			out.WriteByte(' ')
			continue
		}
		out.WriteRune(marks[min(int(float64(v)/float64(most)*float64(len(marks))), len(marks)-1)])
	}
	return out.String()
}

// Amount writes a number in at most four columns: 999, 1.2k, 45k, 3.4M.
func Amount(n int64) string {
	if n < 0 {
		return strconv.FormatInt(n, 10)
	}
	if n < 1000 {
		return strconv.FormatInt(n, 10)
	}
	units := "kMGTPE"
	value := float64(n) / 1000
	for len(units) > 1 && value >= 999.5 {
		value, units = value/1000, units[1:]
	}
	return threeDigits(value) + units[:1]
}

// threeDigits has a decimal only where there is room for one.
func threeDigits(value float64) string {
	if value < 9.95 {
		return strconv.FormatFloat(value, 'f', 1, 64)
	}
	return strconv.FormatFloat(value, 'f', 0, 64)
}

// Brief writes a duration in at most five columns: 85ms, 1.2s, 45s, 2.5m, 12h.
func Brief(d time.Duration) string {
	switch {
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
	case d < time.Minute:
		return threeDigits(d.Seconds()) + "s"
	case d < time.Hour:
		return threeDigits(d.Minutes()) + "m"
	}
	return threeDigits(d.Hours()) + "h"
}
