package configure

import "strings"

const (
	diffContext = 2    // unchanged lines shown around a change
	maxDiff     = 1000 // lines of either side; more is shown as removed and added whole
)

// Line is a line of a difference: Sign is '-', '+', ' ', or '…' where unchanged lines are left out.
type Line struct {
	Sign rune
	Text string
}

// Diff is what changes from before to after, with a little of what does not.
func Diff(before, after string) []Line {
	a, b := splitLines(before), splitLines(after)
	all := merge(a, b)
	var out []Line
	near := make([]bool, len(all))
	for i, l := range all {
		if l.Sign == ' ' {
			continue
		}
		for j := max(0, i-diffContext); j <= min(len(all)-1, i+diffContext); j++ {
			near[j] = true
		}
	}
	for i, l := range all {
		switch {
		case near[i]:
			out = append(out, l)
		case len(out) > 0 && out[len(out)-1].Sign != '…':
			out = append(out, Line{Sign: '…'})
		}
	}
	if n := len(out); n > 0 && out[n-1].Sign == '…' {
		out = out[:n-1]
	}
	return out
}

func splitLines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// merge aligns both by their longest common subsequence.
func merge(a, b []string) []Line {
	var out []Line
	if len(a) > maxDiff || len(b) > maxDiff {
		for _, l := range a {
			out = append(out, Line{'-', l})
		}
		for _, l := range b {
			out = append(out, Line{'+', l})
		}
		return out
	}
	common := make([][]int, len(a)+1) // of a[i:] and b[j:]
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, Line{' ', a[i]})
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			out = append(out, Line{'-', a[i]})
			i++
		default:
			out = append(out, Line{'+', b[j]})
			j++
		}
	}
	return out
}
