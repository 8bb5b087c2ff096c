// Package fakeslm is a stand-in for a self-hosted language model server: enough
// of the OpenAI and Ollama APIs for load tests, with tokens at an exact pace. It
// exists because a load test needs a server that is faster than what is
// measured and that says when it sent what.
//
// Every streamed token carries two stamps of the machine's monotonic clock, in
// nanoseconds: x_due_ns, when the pace called for it, and x_sent_ns, when it was
// written.
//
//	POST /v1/chat/completions   OpenAI chat, whole or as server-sent events
//	POST /v1/embeddings         one fixed vector
//	GET  /v1/models             the one model, Model
//	POST /api/chat              Ollama chat, whole or as NDJSON
//	GET  /bytes?n=N             N bytes
//	POST /sink                  takes any body and counts it
//	GET  /stats                 requests, open streams, bytes sunk
//	POST /pace?tps=F&tokens=N&ttft=D   the pace of requests that begin later
//
// A request's own max_tokens wins over tokens.
package fakeslm
