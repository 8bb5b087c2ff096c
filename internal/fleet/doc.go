// Package fleet knows several agents behind one resource: what they offer
// together, how busy each is, and which of them serves the next request. It
// exists so that these three questions, which decide where a person's request
// runs, can be read and tested without a relay around them.
//
// # Together
//
// [Join] makes one offer of many: the union of the models, and the aliases on
// which nobody contradicts. Every request is read by one kind of model server,
// that of the agent which comes first (healthy ones before others, then by id);
// an agent with another kind serves nothing until somebody changes that. What
// two agents contradict each other about is given up, never chosen between, and
// told in words.
//
// # Load
//
// [Load] is what an agent reported (running and waiting generations), plus what
// this relay has sent it since, less what this relay knows to have ended since,
// and never less than what this relay has running there. So a burst between two
// reports spreads, and other relays' work counts as soon as it is reported.
//
// # Choice
//
// [Choose] looks at every agent rather than at two at random. Two choices win
// where a look costs something, or where everybody acts on the same old numbers:
// the agents of a resource are few, their numbers are in this process, and the
// own part of each is never old. Ties are broken at random, so that relays that
// know the same do not all choose the same.
package fleet
