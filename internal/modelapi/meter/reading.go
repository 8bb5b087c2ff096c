package meter

// reading is what a server said at one time; -1 is unknown.
type reading struct{ input, output, cached, reasoning int64 }

var unknown = reading{-1, -1, -1, -1}

// reading finds the figures of a message, whichever protocol it speaks. ok is false where there are none, or none that
// can be true.
func (e *event) reading() (r reading, ok bool) {
	if e.seen == 0 || e.marks&wrong != 0 {
		return unknown, false
	}
	switch {
	case e.has(inputTokens) || e.has(outputTokens) || e.has(totalTokens):
		if r, ok = e.usage(); !ok {
			return unknown, false
		}
	case e.has(metaInput) || e.has(metaOutput):
		r = reading{e.get(metaInput), e.get(metaOutput), e.get(metaCached), e.get(metaReasoning)}
	case e.has(promptEval) || e.has(eval):
		r = reading{e.get(promptEval), e.get(eval), e.get(promptEvalCached), -1}
	case e.has(evaluated) || e.has(predicted):
		r = reading{e.get(evaluated), e.get(predicted), e.get(cacheN), -1}
	case e.has(predictedN):
		r = reading{sum(e.get(promptN), e.get(cacheN)), e.get(predictedN), e.get(cacheN), -1}
	case e.has(generatedTokens):
		r = reading{e.get(inputLength), e.get(generatedTokens), -1, -1}
	default:
		r = reading{e.get(billedInput), e.get(billedOutput), -1, -1}
	}
	return r.checked()
}

// usage reads a usage object. Anthropic's input leaves out what was cached; all others' includes it.
func (e *event) usage() (reading, bool) {
	r := reading{e.get(inputTokens), e.get(outputTokens), e.get(cachedTokens), e.get(reasoningTokens)}
	total := e.get(totalTokens)
	switch {
	case total < 0:
	case total < max(r.input, 0)+max(r.output, 0):
		return unknown, false
	case r.input >= 0:
		r.output = total - r.input // with the thoughts that some count beside the completion
	default: // a reranker reads all it counts
		r.input = total - max(r.output, 0)
	}
	if e.has(cacheRead) {
		r.cached = e.get(cacheRead)
	}
	if r.input >= 0 {
		r.input += max(e.get(cacheRead), 0) + max(e.get(cacheMade), 0)
	}
	return r, true
}

// tellsOne says whether a usage object is that of one answer, whatever number there are: llama.cpp puts the timings of
// that answer beside it. Of several in one body it tells the first, in a stream each in a chunk of its own.
func (e *event) tellsOne() bool {
	return e.has(outputTokens) && e.get(predictedN) == e.get(outputTokens)
}

// checked refuses what cannot be true. No prompt is of no tokens: servers write 0 where they do not know.
func (r reading) checked() (reading, bool) {
	if r.cached > r.input && r.input > 0 || r.reasoning > r.output && r.output >= 0 {
		return unknown, false
	}
	if r.input == 0 {
		r.input = -1
	}
	return r, r.input > 0 || r.output > 0
}

// merged is r with what a later reading knows better.
func (r reading) merged(later reading) reading {
	return reading{
		orElse(later.input, r.input), orElse(later.output, r.output),
		orElse(later.cached, r.cached), orElse(later.reasoning, r.reasoning),
	}
}

// with is a sum of readings in which one part has changed.
func (r reading) with(before, now reading) reading {
	return reading{
		exchange(r.input, before.input, now.input), exchange(r.output, before.output, now.output),
		exchange(r.cached, before.cached, now.cached), exchange(r.reasoning, before.reasoning, now.reasoning),
	}
}

func exchange(sum, before, now int64) int64 {
	if now < 0 {
		return sum
	}
	return max(sum, 0) - max(before, 0) + now
}

func sum(a, b int64) int64 {
	if a < 0 {
		return b
	}
	return a + max(b, 0)
}

func orElse(a, b int64) int64 {
	if a < 0 {
		return b
	}
	return a
}
