package policy

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Whom the counters of limits belong to.
const (
	PerPrincipal = "principal" // each principal has its own
	PerGroup     = "group"     // those who hold the grant by the same group share them
	PerGrant     = "grant"     // everybody who uses the grant shares them
)

// What a limit that is reached does.
const (
	ModeEnforce = "enforce" // it refuses, and cuts a running answer
	ModeWarn    = "warn"    // it is counted and told, and refuses nothing
)

// Limits is how much a grant allows. A zero number does not limit. Per and Mode
// are never empty in what a grants file or an engine says.
type Limits struct {
	Requests        []Rate `json:"requests,omitempty"`
	Tokens          []Rate `json:"tokens,omitempty"`
	Concurrent      int    `json:"concurrent,omitempty"`
	MaxOutputTokens int    `json:"max_output_tokens,omitempty"`
	Per             string `json:"per,omitempty"`     // a Per… constant
	Mode            string `json:"mode,omitempty"`    // a Mode… constant
	Contact         string `json:"contact,omitempty"` // whom to ask for more
}

// Limiting reports whether anything is limited.
func (l Limits) Limiting() bool {
	return len(l.Requests) > 0 || len(l.Tokens) > 0 || l.Concurrent > 0 || l.MaxOutputTokens > 0
}

// String says the limits in words: 60 requests/1m, 4 at once, for each group.
func (l Limits) String() string {
	var parts []string
	for _, r := range l.Requests {
		parts = append(parts, fmt.Sprintf("%d requests/%s", r.N, FormatDuration(r.Per)))
	}
	for _, r := range l.Tokens {
		parts = append(parts, fmt.Sprintf("%d tokens/%s", r.N, FormatDuration(r.Per)))
	}
	if l.Concurrent > 0 {
		parts = append(parts, fmt.Sprintf("%d at once", l.Concurrent))
	}
	if l.MaxOutputTokens > 0 {
		parts = append(parts, fmt.Sprintf("answers of at most %d tokens", l.MaxOutputTokens))
	}
	switch l.Per {
	case PerGroup:
		parts = append(parts, "shared by the group")
	case PerGrant:
		parts = append(parts, "shared by all who use the grant")
	}
	if l.Mode == ModeWarn {
		parts = append(parts, "only warned of")
	}
	if l.Contact != "" {
		parts = append(parts, "more from "+l.Contact)
	}
	return strings.Join(parts, ", ")
}

// Rate is an amount within a window of time, written 60/1m.
type Rate struct {
	N   int64
	Per time.Duration
}

// Bounds of a rate. A window shorter than a second is no limit that a person
// would notice, one longer than a year outlives every counter.
const (
	minRateWindow = time.Second
	maxRateWindow = 366 * 24 * time.Hour
	maxRateAmount = int64(1e15) // exact as a float64, so every JSON reader agrees
)

// ParseRate reads an amount and a window, such as 60/1m or 2000000/30d.
func ParseRate(text string) (Rate, error) {
	amount, window, found := strings.Cut(text, "/")
	if !found {
		return Rate{}, fmt.Errorf("rate %q is not of the form 60/1m", text)
	}
	n, err := strconv.ParseInt(amount, 10, 64)
	if err != nil || n <= 0 || n > maxRateAmount || strings.HasPrefix(amount, "+") {
		return Rate{}, fmt.Errorf("rate %q: the amount must be a whole number from 1 to %d", text, maxRateAmount)
	}
	per, err := ParseDuration(window)
	if err != nil || per < minRateWindow || per > maxRateWindow {
		return Rate{}, fmt.Errorf("rate %q: the window must be a time from 1s to 366d, such as 1m or 24h", text)
	}
	return Rate{N: n, Per: per}, nil
}

// String writes the rate as ParseRate reads it.
func (r Rate) String() string { return strconv.FormatInt(r.N, 10) + "/" + FormatDuration(r.Per) }

// MarshalJSON writes the text form.
func (r Rate) MarshalJSON() ([]byte, error) { return json.Marshal(r.String()) }

// UnmarshalJSON reads the text form.
func (r *Rate) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("read rate: %w", err)
	}
	parsed, err := ParseRate(text)
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}
