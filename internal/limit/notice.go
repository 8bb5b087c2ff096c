package limit

import "time"

// slotPeriod is for how long a notice about concurrent requests holds, which have no window.
const slotPeriod = 10 * time.Minute

// watch gives notice if a limit's use has reached 80 or 100 percent, once in each window. b.mu is held.
func (b *Book) watch(c *counter, now int64) {
	used := c.charged()
	if c.key.kind == slots {
		used = c.open + c.held(now)
	}
	for i, m := range [2]mark{c.enforced, c.warned} {
		if m.rule == nil || m.n == 0 {
			continue
		}
		switch percent := float64(used) / float64(m.n); {
		case percent >= 1:
			b.notify(c, &c.notices[i], m, 100, now)
		case percent >= 0.8:
			b.notify(c, &c.notices[i], m, 80, now)
		}
	}
}

// notify hands a notice on without waiting, unless it was given within the window. That 100 percent are reached says
// that 80 are. b.mu is held.
func (b *Book) notify(c *counter, given *[2]int64, m mark, percent int, now int64) {
	period := int64(c.key.window)
	if c.key.kind == slots {
		period = int64(slotPeriod)
	}
	level := 0
	if percent == 100 {
		level = 1
	}
	if m.rule == nil || b.closed || (given[level] != 0 && now-given[level] < period) {
		return
	}
	for i := range level + 1 {
		given[i] = now
	}
	select {
	case b.notices <- Notice{Rule: *m.rule, Percent: percent, Text: m.notice(c.key, percent)}:
	default: // nobody takes them
	}
}

func (m mark) notice(key counterKey, percent int) string {
	text := "80 percent of "
	if percent == 100 {
		text = "all of "
	}
	text += m.amount(key) + m.owner() + " used"
	if m.rule.Per != "group" && m.rule.Per != "grant" {
		text += " by " + m.rule.Who
	}
	if m.rule.Warn {
		text += "; nothing is refused"
	}
	return text + m.contact()
}
