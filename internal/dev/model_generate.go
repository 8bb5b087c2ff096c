package dev

import (
	"context"
	"strings"
	"time"
)

const (
	reasonStop   = "stop"
	reasonLength = "length"

	defaultTemperature = 0.7
	fewestSentences    = 3
	moreSentences      = 3 // up to this many minus one on top
	maxStops           = 16
)

// request is what both protocols ask of the model.
type request struct {
	prompt      []string // tokens
	max         int      // tokens; 0: up to the ceiling
	temperature float64
	seed        *int64
	stop        []string
	ignoreEnd   bool // go on until max
}

// outcome is how a generation ended. Its tokens include the one in which a stop string was found.
type outcome struct {
	tokens   int
	reason   string
	started  time.Time
	firstAt  time.Time
	finished time.Time
}

// generate writes text at the model's pace and passes it to emit as it comes, never any part of a stop string. It ends with an error when ctx
// does or when emit fails: somebody left, and nothing more is generated for them.
func (m *DemoModel) generate(ctx context.Context, q request, emit func(text string) error) (outcome, error) {
	m.active.Add(1)
	defer m.active.Add(-1)
	g := m.newGeneration(q)
	beat := newMetronome(m.pace)
	defer beat.stop()
	for g.reason == "" {
		if err := beat.wait(ctx); err != nil {
			return g.outcome, err
		}
		text := g.step()
		m.generated.Add(1)
		if text == "" {
			continue // all of it may yet become a stop string
		}
		if err := emit(text); err != nil {
			return g.outcome, err
		}
	}
	g.finished = time.Now()
	return g.outcome, nil
}

// generation is one answer in the making.
type generation struct {
	outcome
	writer    *writer
	hold      holdBack
	before    string // the token written last
	limit     int    // tokens
	sentences int    // left until it ends by itself; negative: it does not
}

func (m *DemoModel) newGeneration(q request) *generation {
	random := newRandom(q.seed, q.prompt)
	g := &generation{
		outcome: outcome{started: time.Now()}, hold: holdBack{stops: q.stop},
		writer: m.learn().newWriter(q.prompt, q.temperature, random),
		limit:  q.max, sentences: m.sentences,
	}
	if g.sentences <= 0 {
		g.sentences = fewestSentences
		if q.temperature > 0 {
			g.sentences += random.IntN(moreSentences)
		}
	}
	if q.ignoreEnd {
		g.sentences = -1
	}
	if g.limit <= 0 || g.limit > maxTokensCeiling {
		g.limit = maxTokensCeiling
	}
	return g
}

// step writes one token and returns the text that may go out for it. It sets the reason when it was the last.
func (g *generation) step() string {
	token := g.writer.next()
	if g.tokens++; g.tokens == 1 {
		g.firstAt = time.Now()
	}
	text, stopped := g.hold.add(spaced(g.before, token))
	g.before = token
	if endsSentence(token) {
		g.sentences--
	}
	switch {
	case stopped:
		g.reason = reasonStop
	case g.sentences == 0:
		g.reason = reasonStop
		text += g.hold.rest()
	case g.tokens >= g.limit:
		g.reason = reasonLength
		text += g.hold.rest()
	}
	return text
}

// holdBack keeps text that may become a stop string until it is clear that it does not.
type holdBack struct {
	stops []string
	held  string
}

// add takes more text and returns what may go out; stopped means a stop string was completed, and what came before it is returned.
func (h *holdBack) add(text string) (out string, stopped bool) {
	h.held += text
	first := -1
	for _, stop := range h.stops {
		if at := strings.Index(h.held, stop); at >= 0 && (first < 0 || at < first) {
			first = at
		}
	}
	if first >= 0 {
		return h.held[:first], true
	}
	keep := 0
	for _, stop := range h.stops {
		for n := min(len(stop)-1, len(h.held)); n > keep; n-- {
			if strings.HasSuffix(h.held, stop[:n]) {
				keep = n
			}
		}
	}
	out, h.held = h.held[:len(h.held)-keep], h.held[len(h.held)-keep:]
	return out, false
}

func (h *holdBack) rest() string {
	out := h.held
	h.held = ""
	return out
}

// metronome beats at fixed times from its start, so that a late token does not make all later ones late.
type metronome struct {
	pace  time.Duration
	due   time.Time
	timer *time.Timer
}

func newMetronome(pace time.Duration) *metronome {
	return &metronome{pace: pace, due: time.Now()}
}

// wait returns at the next beat, at once if that has passed, or with ctx's error.
func (b *metronome) wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil || b.pace == 0 {
		return err
	}
	b.due = b.due.Add(b.pace)
	pause := time.Until(b.due)
	if pause <= 0 {
		return nil
	}
	if b.timer == nil {
		b.timer = time.NewTimer(pause)
	} else {
		b.timer.Reset(pause)
	}
	select {
	case <-b.timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *metronome) stop() {
	if b.timer != nil {
		b.timer.Stop()
	}
}
