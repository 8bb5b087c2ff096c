package modelapi

import (
	"net/url"
	"strings"
)

// AmbiguousPath says whether servers differ on what path means: dot segments in any spelling, an authority in disguise,
// backslashes, fragments, control bytes.
func AmbiguousPath(path string) bool {
	if HasControl(path) || strings.HasPrefix(path, "//") || strings.ContainsAny(path, `\#`) {
		return true
	}
	for segment := range strings.SplitSeq(path, "/") {
		decoded, err := url.PathUnescape(segment)
		name, _, _ := strings.Cut(decoded, ";") // some servers cut parameters off before they look for dots
		if err != nil || name == "." || name == ".." || HasControl(decoded) {
			return true
		}
		for part := range strings.FieldsFuncSeq(decoded, func(r rune) bool { return r == '/' || r == '\\' }) {
			if part == ".." || part == "." {
				return true
			}
		}
	}
	return false
}

// HasControl reports whether s holds a control byte.
func HasControl(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return true
		}
	}
	return false
}
