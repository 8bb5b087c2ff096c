package limit

import (
	"net/http"
	"strconv"
	"time"
)

// header sets x-ratelimit-* as OpenAI's API does, for the rate of each kind that has the least left. Limits that only
// warn are not told. The lock of the book is held and the windows stand at now.
func header(h http.Header, holds []hold, now int64) {
	for _, k := range []kind{requests, tokens} {
		var tightest *counter
		for i := range holds {
			c := holds[i].c
			if c.key.kind == k && c.enforced.rule != nil && (tightest == nil || c.room(now) < tightest.room(now)) {
				tightest = c
			}
		}
		if tightest == nil {
			continue
		}
		limitKey, remainingKey, resetKey := "X-Ratelimit-Limit-Requests", "X-Ratelimit-Remaining-Requests", "X-Ratelimit-Reset-Requests"
		if k == tokens {
			limitKey, remainingKey, resetKey = "X-Ratelimit-Limit-Tokens", "X-Ratelimit-Remaining-Tokens", "X-Ratelimit-Reset-Tokens"
		}
		h.Set(limitKey, strconv.FormatInt(tightest.limit(), 10))
		h.Set(remainingKey, strconv.FormatInt(max(0, tightest.room(now)), 10))
		h.Set(resetKey, resetIn(tightest.clears(now)-now))
	}
}

// resetIn writes a time as OpenAI's headers do: 6m0s, 1s, 20ms. It is rounded up.
func resetIn(nanos int64) string {
	unit := time.Second
	if nanos < int64(time.Second) {
		unit = time.Millisecond
	}
	d := time.Duration(nanos) + unit - 1
	return d.Truncate(unit).String()
}
