package limit_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"iap/internal/limit"
)

func TestRefusalSaysItAll(t *testing.T) {
	c := newClock() // 14:00:00
	b := book(t, memory(t, c), c, "relay-1")
	day := engineers(perDay(200_000))
	reserve(t, b, limit.Ask{Rules: []limit.Rule{day}, Input: 12_000}).Settle(12_000, 0)
	c.Add(40 * time.Minute)
	reserve(t, b, limit.Ask{Rules: []limit.Rule{day}, Input: 188_000}).Settle(188_000, 0)
	if e, want := refused(t, b, limit.Ask{Rules: []limit.Rule{day}, Input: 1}, "budget_exceeded"), "12,000 free at 2026-11-24 14:24 UTC. "; !strings.Contains(e.Error(), want) {
		t.Errorf("%s\ndoes not say %q", e, want)
	}
	c.Add(22 * time.Hour)

	minute := engineers()
	minute.Requests = []limit.Rate{perMinute(60)}
	for range 60 {
		reserve(t, b, limit.Ask{Rules: []limit.Rule{minute}}).Settle(0, 0)
	}
	group := limit.Rule{Grant: "night", Per: "group", Who: "corp/ml-eng", Tokens: []limit.Rate{{N: 1500, Per: 90 * time.Minute}}}
	running := reserve(t, b, limit.Ask{Rules: []limit.Rule{group}, Input: 1000})
	defer running.Release()
	all := limit.Rule{Grant: "all", Per: "grant", Concurrent: 1, Contact: "ops@example.org"}
	defer reserve(t, b, limit.Ask{Rules: []limit.Rule{all}}).Release()

	for _, test := range []struct {
		ask   limit.Ask
		want  string
		retry time.Duration
	}{
		{
			limit.Ask{Rules: []limit.Rule{day}, Input: 1000},
			"budget_exceeded: 200,000 tokens/24h of grant engineers-chat used; 12,000 free at 14:24 UTC. Ask: #ml-platform",
			1*time.Hour + 44*time.Minute,
		},
		{
			limit.Ask{Rules: []limit.Rule{day}, Input: 12_000, Output: 1},
			"budget_exceeded: 200,000 tokens/24h of grant engineers-chat used; 200,000 free at 14:48 UTC. Ask: #ml-platform",
			2*time.Hour + 8*time.Minute,
		},
		{
			limit.Ask{Rules: []limit.Rule{day}, Input: 200_001},
			"budget_exceeded: this request needs 200,001, more than 200,000 tokens/24h of grant engineers-chat ever allow; ask for less. Ask: #ml-platform",
			24 * time.Hour,
		},
		{
			limit.Ask{Rules: []limit.Rule{{Grant: "month", Per: "grant", Tokens: []limit.Rate{{N: 100, Per: 720 * time.Hour}}}}, Input: 101},
			"budget_exceeded: this request needs 101, more than 100 tokens/30d of grant month for all its callers together ever allow; ask for less",
			24 * time.Hour,
		},
		{
			limit.Ask{Rules: []limit.Rule{minute}},
			"rate_limited: 60 requests/1m of grant engineers-chat used; 60 free at 12:41:01 UTC. Ask: #ml-platform",
			61 * time.Second,
		},
		{
			limit.Ask{Rules: []limit.Rule{group}, Input: 501},
			"budget_exceeded: 1,000 of 1,500 tokens/90m of grant night for group corp/ml-eng used, this request needs 501; more is free when running requests end",
			2 * time.Second,
		},
		{
			limit.Ask{Rules: []limit.Rule{all}},
			"concurrency_exceeded: 1 concurrent requests of grant all for all its callers together are running; try again when one has ended. Ask: ops@example.org",
			2 * time.Second,
		},
	} {
		code, _, _ := strings.Cut(test.want, ":")
		e := refused(t, b, test.ask, code)
		if e.Error() != test.want {
			t.Errorf("said: %s\nwant: %s", e, test.want)
		}
		if e.RetryAfter != test.retry {
			t.Errorf("%s\nretry after %v, want %v", e, e.RetryAfter, test.retry)
		}
	}
}

func TestWhoSaidNoLengthIsToldWhenAnAnswerIsWorthHaving(t *testing.T) {
	c := newClock()
	b := book(t, memory(t, c), c, "relay-1")
	day := []limit.Rule{engineers(perDay(1000))}
	reserve(t, b, limit.Ask{Rules: day, Input: 700}).Settle(700, 0)
	c.Add(2 * time.Hour)
	reserve(t, b, limit.Ask{Rules: day, Input: 290}).Settle(290, 0)
	unsaid := refused(t, b, limit.Ask{Rules: day, Input: 10, Output: 4096, Unstated: true}, "budget_exceeded")
	if want := "990 of 1,000 tokens/24h of grant engineers-chat used; 710 free at "; !strings.HasPrefix(unsaid.Message, want) {
		t.Errorf("%s\ndoes not say %q", unsaid.Message, want)
	}
	said := refused(t, b, limit.Ask{Rules: day, Input: 10, Output: 4096}, "budget_exceeded")
	if !strings.Contains(said.Message, "this request needs 1,000; 1,000 free at ") || said.RetryAfter <= unsaid.RetryAfter {
		t.Errorf("%s, after %v; unsaid after %v", said.Message, said.RetryAfter, unsaid.RetryAfter)
	}
}

// headers writes x-ratelimit-* on one line.
func headers(h http.Header) string {
	text := ""
	for _, key := range slices.Sorted(maps.Keys(h)) {
		text += fmt.Sprint(strings.TrimPrefix(key, "X-Ratelimit-"), "=", h.Get(key), " ")
	}
	return strings.TrimSpace(text)
}

func TestHeadersTellTheTightestRate(t *testing.T) {
	c := newClock()
	b := book(t, memory(t, c), c, "relay-1")
	wide := engineers(perDay(200_000), perMinute(3000))
	wide.Requests = []limit.Rate{perMinute(60), {N: 5, Per: time.Second}, {N: 1000, Per: time.Hour}}
	warned := engineers(perDay(10))
	warned.Warn, warned.Grant = true, "other"
	ask := limit.Ask{Rules: []limit.Rule{wide, warned}, Input: 500, Output: 1000}
	r := reserve(t, b, ask)
	h := http.Header{}
	r.Header(h)
	if got, want := headers(h), "Limit-Requests=5 Limit-Tokens=3000 Remaining-Requests=4 Remaining-Tokens=1500 Reset-Requests=2s Reset-Tokens=1m1s"; got != want {
		t.Errorf("headers\n%s, want\n%s", got, want)
	}
	r.Settle(500, 100)
	c.Add(30 * time.Second)
	ask.Input, ask.Output = 2401, 0
	got := headers(refused(t, b, ask, "budget_exceeded").Header)
	if want := "Limit-Requests=5 Limit-Tokens=3000 Remaining-Requests=5 Remaining-Tokens=2400 Reset-Requests=0s Reset-Tokens=31s"; got != want {
		t.Errorf("headers of the refusal\n%s, want\n%s", got, want)
	}
	h = http.Header{}
	reserve(t, b, limit.Ask{Rules: []limit.Rule{warned}}).Header(h)
	if len(h) > 0 {
		t.Errorf("a limit that only warns says %s", headers(h))
	}
}

// told collects notices.
type told chan limit.Notice

func (n told) next(t *testing.T) limit.Notice {
	t.Helper()
	select {
	case notice := <-n:
		return notice
	case <-background(t).Done():
		t.Fatal("no notice")
		return limit.Notice{}
	}
}

func TestNoticesAt80And100PercentOncePerWindow(t *testing.T) {
	c := newClock()
	s := memory(t, c)
	notices := make(told, 100)
	o := limit.Options{Store: s, Holder: "relay-1", Now: c.Now, Notice: func(n limit.Notice) { notices <- n }}
	b := bookWith(t, o)
	ask := limit.Ask{Rules: []limit.Rule{engineers(perDay(1000))}, Input: 100}
	for range 10 {
		reserve(t, b, ask).Settle(100, 0)
	}
	for range 3 {
		refused(t, b, ask, "budget_exceeded")
	}
	first, second := notices.next(t), notices.next(t)
	if first.Percent != 80 || second.Percent != 100 || first.Rule.Grant != "engineers-chat" {
		t.Errorf("notices %+v, %+v", first, second)
	}
	if want := "80 percent of 1,000 tokens/24h of grant engineers-chat used by corp/8a7f3c. Ask: #ml-platform"; first.Text != want {
		t.Errorf("text %q, want %q", first.Text, want)
	}
	closeBook(t, b) // takes the queue along
	b = bookWith(t, o)
	refused(t, b, ask, "budget_exceeded") // a restart does not repeat it
	c.Add(25 * time.Hour)
	reserve(t, b, limit.Ask{Rules: ask.Rules, Input: 1000}).Settle(1000, 0)
	third := notices.next(t)
	if third.Percent != 100 || third.Text != "all of 1,000 tokens/24h of grant engineers-chat used by corp/8a7f3c. Ask: #ml-platform" {
		t.Errorf("in the next window: %+v", third)
	}
	closeBook(t, b)
	if len(notices) > 0 {
		t.Errorf("one more: %+v", <-notices)
	}
}

func TestWarnModeCountsAndRefusesNothing(t *testing.T) {
	c := newClock()
	notices := make(told, 100)
	b := bookWith(t, limit.Options{Store: memory(t, c), Holder: "relay-1", Now: c.Now, Notice: func(n limit.Notice) { notices <- n }})
	rule := engineers(perDay(1000))
	rule.Warn, rule.Requests, rule.Concurrent = true, []limit.Rate{perMinute(1)}, 1
	ask := limit.Ask{Rules: []limit.Rule{rule}, Input: 100, Output: 900}
	for range 3 {
		defer reserve(t, b, ask).Release()
		reserve(t, b, ask).Settle(100, 900)
	}
	flush(t, b)
	all, err := b.Usage(background(t), []limit.Rule{rule})
	if err != nil || all[1].Used != 3000 || all[0].Used != 6 || all[2].Held != 3 {
		t.Errorf("standings %+v, %v", all, err)
	}
	texts := map[string]bool{}
	for range 3 {
		texts[notices.next(t).Text] = true
	}
	for _, want := range []string{
		"all of 1 requests/1m of grant engineers-chat used by corp/8a7f3c; nothing is refused. Ask: #ml-platform",
		"all of 1,000 tokens/24h of grant engineers-chat used by corp/8a7f3c; nothing is refused. Ask: #ml-platform",
		"all of 1 concurrent requests of grant engineers-chat used by corp/8a7f3c; nothing is refused. Ask: #ml-platform",
	} {
		if !texts[want] {
			t.Errorf("no notice %q among %v", want, texts)
		}
	}
}

func TestNobodyTakingNoticesHoldsUpNobody(t *testing.T) {
	c := newClock()
	release := make(chan struct{})
	b := bookWith(t, limit.Options{Store: memory(t, c), Holder: "relay-1", Now: c.Now, Notice: func(limit.Notice) { <-release }})
	defer close(release)
	for i := range 200 {
		rule := engineers(perDay(1))
		rule.Who = fmt.Sprint(i)
		reserve(t, b, limit.Ask{Rules: []limit.Rule{rule}, Input: 1}).Settle(1, 0)
	}
}

func TestResetFreesTheBudgetOnAllRelays(t *testing.T) {
	c := newClock()
	s := memory(t, c)
	b, other := book(t, s, c, "relay-1"), book(t, s, c, "relay-2")
	rule := engineers(perDay(1000))
	rule.Requests = []limit.Rate{perMinute(2)}
	ask := limit.Ask{Rules: []limit.Rule{rule}, Input: 500}
	reserve(t, b, ask).Settle(500, 0)
	running := reserve(t, other, ask)
	c.Add(time.Second)
	refused(t, b, ask, "budget_exceeded")
	flush(t, b)
	flush(t, other)
	if err := b.Reset(background(t), rule); err != nil {
		t.Fatal(err)
	}
	c.Add(time.Second)
	running.Settle(400, 0) // was reserved, and counts
	flush(t, other)
	if s := standing(t, other, limit.Rule{Grant: rule.Grant, Per: rule.Per, Who: rule.Who, Tokens: rule.Tokens}); s.Used != 400 || s.Limit != 1000 {
		t.Errorf("after the reset %+v", s)
	}
	reserve(t, b, ask).Settle(500, 0)
}
