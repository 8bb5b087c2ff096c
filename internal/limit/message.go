package limit

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// exceeded words the refusal of a request that needs so much of a counter. b.mu is held.
func (b *Book) exceeded(r *reservation, c *counter, need, now int64) *Exceeded {
	m := c.enforced
	b.notify(c, &c.notices[0], m, 100, now)
	e := &Exceeded{Header: http.Header{}}
	var text strings.Builder
	switch c.key.kind {
	case requests:
		e.Code = "rate_limited"
	case tokens:
		e.Code = "budget_exceeded"
	case slots:
		e.Code = "concurrency_exceeded"
	}
	room := c.room(now)
	at, free, fits := c.whenFree(need, now)
	e.RetryAfter = retryIn(at, now)
	switch {
	case c.key.kind == slots:
		text.WriteString(m.amount(c.key) + m.owner() + " are running; try again when one has ended")
		e.RetryAfter = endRetry
	case need > m.n:
		text.WriteString("this request needs " + grouped(need) + ", more than " + m.amount(c.key) + m.owner() + " ever allow; ask for less")
		e.RetryAfter = retryIn(now+int64(c.key.window), now)
	case room > 0 && r.ask.Unstated:
		text.WriteString(grouped(m.n-room) + " of " + m.amount(c.key) + m.owner() + " used; ")
	case room > 0:
		text.WriteString(grouped(m.n-room) + " of " + m.amount(c.key) + m.owner() + " used, this request needs " + grouped(need) + "; ")
	default:
		text.WriteString(m.amount(c.key) + m.owner() + " used; ")
	}
	switch {
	case c.key.kind == slots || need > m.n:
	case fits:
		text.WriteString(grouped(free) + " free at " + clockTime(b.wall(at, now), b.wall(now, now)))
	case free > 0 && at > now:
		text.WriteString(grouped(free) + " free at " + clockTime(b.wall(at, now), b.wall(now, now)) + ", more when running requests end")
	default:
		text.WriteString("more is free when running requests end")
		e.RetryAfter = endRetry
	}
	text.WriteString(m.contact())
	e.Message = text.String()
	header(e.Header, r.holds, now)
	return e
}

// amount writes a limit: 200,000 tokens/24h, 60 requests/1m, 4 concurrent requests.
func (m mark) amount(key counterKey) string {
	switch key.kind {
	case slots:
		return grouped(m.n) + " concurrent requests"
	default:
		return grouped(m.n) + " " + string(key.kind) + "/" + shortDuration(key.window)
	}
}

// owner says whose limit it is, as far as the caller may not know.
func (m mark) owner() string {
	text := ""
	if m.rule.Grant != "" {
		text = " of grant " + m.rule.Grant
	}
	switch m.rule.Per {
	case "group":
		return text + " for group " + m.rule.Who
	case "grant":
		return text + " for all its callers together"
	}
	return text
}

func (m mark) contact() string {
	if m.rule.Contact == "" {
		return ""
	}
	return ". Ask: " + m.rule.Contact
}

// grouped writes an amount with separators: 200,000.
func grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, text = "-", text[1:]
	}
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return sign + text
}

// shortDuration writes a window as people do, and as the policy does: 30d, 24h, 90m, 1m30s.
func shortDuration(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day && d%day == 0:
		return strconv.FormatInt(int64(d/day), 10) + "d"
	case d >= time.Hour && d%time.Hour == 0:
		return strconv.FormatInt(int64(d/time.Hour), 10) + "h"
	case d >= time.Minute && d%time.Minute == 0:
		return strconv.FormatInt(int64(d/time.Minute), 10) + "m"
	}
	return d.String()
}

// clockTime writes a time for people, rounded up so that nobody comes too early: to the minute, to the second if it is
// near, with the day if that is not today's.
func clockTime(at, now time.Time) string {
	layout, unit := "15:04 UTC", time.Minute
	if at.Sub(now) < 10*time.Minute {
		layout, unit = "15:04:05 UTC", time.Second
	}
	at = at.UTC().Add(unit - 1).Truncate(unit)
	if at.Format(time.DateOnly) != now.UTC().Format(time.DateOnly) {
		layout = "2006-01-02 " + layout
	}
	return at.Format(layout)
}
