package meter

import "iap/internal/modelapi"

const (
	bytesPerToken = 4    // the rule of thumb for an estimate
	bytesPerID    = 6    // of a token by number, with its comma
	maxChoices    = 4096 // choices of one stream told apart; readings of others are not taken
)

// counts adds up what the messages of one answer said.
type counts struct {
	counted    bool // the action costs tokens
	generating bool // it makes text
	streamed   bool
	asked      int64 // answers
	times      int64 // answers that were generated for each that is told of

	now    reading   // the server's latest word
	final  bool      // it was the last one of a complete answer
	parts  []reading // where choices are counted one by one, by index
	given  int       // of them, those that have a reading
	shared bool      // each of them names the same prompt

	since  int64 // pieces after the latest word on output
	pieces int64
	text   int64 // bytes generated
	bytes  int64 // of all messages
	marks  marks
	items  int64 // of a list
	told   int64 // answers with a usage chunk of their own
}

func newCounts(c *modelapi.Class, status int) counts {
	out := counts{now: unknown, streamed: c.Framing == modelapi.SSE || c.Framing == modelapi.NDJSON, asked: max(c.Choices, 1), times: 1}
	if c.Protocol == modelapi.TGI {
		out.times = out.asked // of best_of it tells what the best one cost
	}
	switch c.Action {
	case modelapi.Chat, modelapi.Complete, modelapi.Transcribe:
		out.counted, out.generating = true, status < 400 && c.SubAction != modelapi.SubSpeech
	case modelapi.Embed, modelapi.Rerank:
		out.counted = true
	}
	return out
}

// take adds what a message said.
func (c *counts) take(e *event) {
	c.marks |= e.marks & (known | failed | byTime)
	if !c.counted {
		return
	}
	pieces, text := e.pieces, e.text
	if pieces == 0 { // nothing but numbers
		pieces = (e.ids + bytesPerID - 1) / bytesPerID
		text = pieces * bytesPerToken
	}
	c.pieces += pieces
	c.since += pieces
	c.text += text
	if !c.streamed {
		c.text += e.whole
	}
	position := int64(-1)
	if e.marks&isList != 0 {
		position = c.items
		c.items++
	} else if c.streamed && e.marks&several == 0 && !e.has(generatedTokens) {
		position = e.get(index)
	}
	r, ok := e.reading()
	switch {
	case !ok:
		return
	case c.asked == 1 || !e.tellsOne():
	case !c.streamed && e.marks&several != 0:
		r = reading{-1, r.output * c.asked, -1, -1} // the first of them, and of its prompt
	case c.streamed && e.marks&(listed|filled) == listed:
		position = c.told
		c.told++
	}
	c.read(r, e.marks, position)
}

// read takes a reading: of the choice at position, or of the whole answer if that is -1.
func (c *counts) read(r reading, m marks, position int64) {
	if position >= maxChoices {
		return
	}
	if r.output >= 0 {
		c.since = 0
	}
	if position < 0 {
		c.now = c.now.merged(r)
		c.final = m&(final|listed|usageGiven) != 0 && m&filled == 0 || m&final != 0
		c.shared = c.shared && r.input < 0
		return
	}
	for int64(len(c.parts)) <= position {
		c.parts = append(c.parts, unknown)
	}
	before := c.parts[position]
	if before == unknown {
		c.given++
	}
	c.parts[position] = before.merged(r)
	c.now = c.now.with(before, c.parts[position])
	c.final = m&final != 0 && c.given == 1
	c.shared = c.given > 1 && m&usageGiven != 0
}

// usage is what is known. whole says that the answer came to its end.
func (c *counts) usage(whole bool) Usage {
	u := Usage{Input: c.now.input, Output: -1, Cached: c.now.cached, Reasoning: c.now.reasoning}
	if c.shared {
		u.Input = -1
	}
	if !c.counted {
		return u
	}
	seen := c.pieces > 0 || c.text > 0
	output := c.now.output
	switch {
	case output > 0 || output == 0 && !seen:
		u.Output, u.Source = output, c.source(whole)
		if c.streamed && c.since > 0 {
			u.Output, u.Source = output+c.since, Deltas
		}
		if c.asked > 1 && !whole && c.pieces > u.Output { // some have told what they cost, others not yet
			u.Output, u.Source = c.pieces, Deltas
		}
	case !c.generating || c.marks&byTime != 0:
		if u.Input >= 0 {
			u.Source = c.source(whole)
			if !c.generating {
				u.Output = 0
			}
		}
	case c.streamed && (seen || c.marks&known != 0):
		u.Output, u.Source = c.pieces, Deltas
	case seen:
		u.Output, u.Source = inTokens(c.text), Estimate
	case c.marks&failed == 0 && c.bytes > 0:
		u.Output, u.Source = inTokens(c.bytes), Estimate
	case u.Input >= 0:
		u.Source = c.source(whole)
	}
	if u.Output > 0 {
		u.Output *= c.times
	}
	return u
}

func (c *counts) source(whole bool) Source {
	if whole || c.final || !c.streamed {
		return Provider
	}
	return Running
}

func inTokens(bytes int64) int64 { return (bytes + bytesPerToken - 1) / bytesPerToken }
