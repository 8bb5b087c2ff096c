package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	day     = 24 * time.Hour
	maxDays = 100_000 // keeps the sum within 64 bits of nanoseconds
)

// ParseDuration reads a time as Go writes it, with days of 24 hours in front
// where there are some: 30m, 12h, 90d, 1d12h. It is never negative.
func ParseDuration(text string) (time.Duration, error) {
	days, rest, found := strings.Cut(text, "d")
	if !found {
		days, rest = "", text
	}
	var sum time.Duration
	if found {
		n, err := strconv.ParseUint(days, 10, 32)
		if err != nil || n > maxDays {
			return 0, fmt.Errorf("%q is no time such as 30m, 12h or 90d", text)
		}
		sum = time.Duration(n) * day
	}
	if rest != "" || !found {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 || strings.HasPrefix(rest, "-") || strings.HasPrefix(rest, "+") {
			return 0, fmt.Errorf("%q is no time such as 30m, 12h or 90d", text)
		}
		if sum += d; sum < 0 {
			return 0, fmt.Errorf("%q is too long", text)
		}
	}
	return sum, nil
}

// FormatDuration writes a time as ParseDuration reads it, without the zero parts
// that Duration.String appends: 24h, not 24h0m0s; from two days on in days.
func FormatDuration(d time.Duration) string {
	if d >= 2*day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// durationText is a time in JSON as it stands in a grants file.
type durationText time.Duration

func (d durationText) MarshalJSON() ([]byte, error) {
	return json.Marshal(FormatDuration(time.Duration(d)))
}

func (d *durationText) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) != nil {
		return errors.New("a time is a text such as 12h or 90d")
	}
	parsed, err := ParseDuration(text)
	if err != nil {
		return err
	}
	*d = durationText(parsed)
	return nil
}
