// Package usage counts who used what: requests, tokens, time to first token, denials, by principal, group, resource, model,
// action and grant. It exists so that a question about last week is answered from sums that are kept for it, and not by
// reading the audit log.
//
// It is statistics, not a ledger: what a budget leaves is counted by package limit, what happened is in the audit log. A
// relay that is killed loses at most what was added since the last write, [FlushEvery] before, and nothing it had written.
//
// # Rooms
//
//	entry.go       what is added, what is counted, and the words that stand for names that are not kept
//	histogram.go   times to the first token, in fixed buckets that can be added up
//	table.go       sums by series, bounded in number
//	bucket.go      minutes, hours and days, and the keys they are kept under
//	encode.go      a table as bytes
//	book.go        the book of one relay, from Open to Close
//	flush.go       what was added goes to the store
//	query.go       questions; read.go: what of the store is read for one
//
// # Three levels
//
// Each entry is added to a minute, an hour and a day (UTC), each of which is complete in itself: none is made from another
// later, so that no step in between can lose or double anything. Minutes are kept for two hours, hours for fourteen days,
// days as long as [Options.Retain] says. A question takes days where it can, hours at its edges, minutes if it is about the
// last two hours.
//
// # In the store
//
//	usage/LEVEL/SHARD/TIME/HOLDER    usage/h/3/2026-11-23T21/<relay>
//
// LEVEL is m, h or d; SHARD is a digit, by principal, so that one principal's usage is one range of keys and no value is
// larger than the store takes; HOLDER is the relay that wrote it, so that relays that share a store add up and never wait
// for each other. An item is changed by compare-and-swap, and names the last write that it holds: one whose answer was lost
// is recognised, and not added again.
//
// # What is bounded
//
// Names come from outside: a principal may ask for any model. The relay gives the names of models that were allowed and
// that the server has; the rest of the bound is here. A principal has at most a hundred series in a bucket, a bucket at
// most some thousands; what finds no place is added to a series named "(other)", so that totals stay exact. While the store
// is away the same holds for what waits in memory: first minutes are given up, then the names in the oldest hours and days.
package usage
