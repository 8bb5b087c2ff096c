// Package meter counts what an answer of a model server costs, while it flows. It exists because budgets are kept
// during a stream, not after it, and because six servers report their usage in a dozen shapes and places.
//
// A [Meter] is a tap: [Meter.Feed] reads the bytes that pass and gives back those to send on, in almost all cases the
// very slice it was given. It keeps no answer: one scanner walks the JSON of events (SSE), lines (NDJSON) or of a
// plain answer as it comes, cut anywhere, and notes the few members that say something about cost. What it holds is
// bounded whatever the server sends.
//
// The messages of a stream are alike but for a text and perhaps a counter. The one read last serves as a template: a
// message with the same bytes around these holes says the same, and is compared instead of read.
//
// # Where a count comes from
//
// The server's word is taken first, then what can be seen, and [Usage].Source says which:
//
//   - Provider: figures the server gave for the whole answer: usage (chat, completions, Responses, Anthropic
//     messages, embeddings), eval_count, tokens_predicted, timings, meta_info, details, x-generated-tokens.
//   - Running: the latest of its running figures, when the answer was cut.
//   - Deltas: pieces of text, thought or tool call counted, about one token each, a long one by its bytes; if the
//     server had given a figure before them, that figure and the pieces since.
//   - Estimate: bytes of generated text divided by four.
//   - Unset: nothing is known.
//
// Running figures of several choices in one stream are kept by index and added up. Where a server tells the cost of one
// answer of several (llama.cpp, TGI's best of several) it counts for each. A reading that cannot be true
// (negative, fractional, beyond 10^12, a total below the sum, more cached than read, no output beside text) is
// not taken, and the next source stands in. Input is never estimated here: who asked knows the request's bytes.
//
// # What is held back
//
// Only two classes of request make Feed hold bytes, at most 64 KiB, and only of one unfinished message:
//
//   - Class.HidesUsage: the chunk with an empty choices list and a usage object is taken out, with its event's other
//     lines and its blank line. A message is released as soon as it cannot be that chunk, with most servers within
//     its first bytes. One larger than the bound is passed on as it is.
//   - Class.Hands: the id must be known, and owned, before its bytes leave. If it cannot be read within the bound,
//     the answer passes and [Meter.ID] stays empty for good. That fails closed: an id that nobody owns is denied to
//     everybody, so that giving up costs the caller the use of the id and nothing else.
//
// Lines of an event stream end with LF or CR LF, as every model server writes them; a lone CR ends no line here.
package meter
