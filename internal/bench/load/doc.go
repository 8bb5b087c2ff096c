// Package load loads an OpenAI-compatible server, directly or through a tunnel,
// and reports latency, throughput and what each process on the way used. It
// exists because net/http's client costs more than the tunnels it would
// measure: this one speaks just enough HTTP/1.1 to a package fakeslm server.
//
// Tests, by name:
//
//	lat-cN     small requests on N warm connections, one at a time each; with N > 1 at a steady rate in all
//	sat-cN     the same, as fast as possible
//	new-cN     as lat-cN, each request on a new connection
//	newsat-cN  as sat-cN, each request on a new connection
//	sse-N      N streams at a steady pace of tokens
//	idle-N     N streams of one token in 5 s
//	down-N     N downloads
//	up-N       N uploads
//	mix-N      N streams with a download beside them
package load
