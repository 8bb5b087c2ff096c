// Package bench measures the product against no tunnel: rounds in turn, direct
// and through the tunnel, and medians of the ratios within a round. It exists
// because machines are shared and noisy: what two runs an hour apart say of
// each other is the weather, what two neighbours in a round say is the tunnel.
// Processor time for each request, token or gigabyte is the steadiest figure.
//
// `make bench` runs cmd/tunnelbench. Beside each figure stands the goal it is
// held to; a goal missed fails nothing, a failed request does.
package bench
