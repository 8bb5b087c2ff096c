// Package limit keeps count of what principals may use within windows of time, and says no before it is too much.
//
// It exists so that a budget holds whatever happens: two hundred requests that race for the last of it, several relays
// that share it, a relay that crashes, a store that is away, a clock that is set back. Nothing here knows models or
// protocols; a [Rule] says on which counter an amount is counted, a [Reservation] is what one request holds of it.
//
// # Rooms
//
//	limit.go         the words: rules, what is asked, what is held, what is refused
//	book.go          a relay's book of counters, from Open to Close
//	reserve.go, reservation.go   a request takes its part; uses it, settles it
//	counter.go, window.go   one counter, and the time it looks back on
//	lease.go, round.go, record.go   what is leased from the store, how that is exchanged, how it is written there
//	message.go, header.go, notice.go   what those are told who are refused, answered, or near the end
//	standing.go      how limits stand; a reset
//
// # A request's way
//
//	Reserve   input estimate + output cap are set aside, with one request and one slot: of all rules, or of none
//	Use       while the answer flows: within the reservation a comparison; beyond it, the reservation grows while it can
//	Settle    what was really used is charged, the rest is free again
//	Release   instead of Settle: nothing went upstream, and the request does not count either
//
// If a budget leaves less output than asked for, the reservation is for what it leaves ([Reservation.Output]), down to 16
// tokens for each answer; below that the request is refused. The guard writes the amount into the request, and when it is
// used up Use says which budget ended the answer. An upstream that uses more than it was allowed is charged in full, and
// the budget stays below zero until that has slid out. Two limits on one counter (same grant, principal and window)
// count once and hold to the lesser.
//
// # Windows
//
// Windows slide, in sixtieths: a charge counts for at least one window and at most one sixtieth more. So no span of time
// of a window's length ever holds more than the limit. Requests are charged to the moment they are reserved. Tokens count
// from their reservation on, for as long as the request runs, and are charged to the moment of Settle: whenever between
// the two they were used, they count for a whole window after.
//
// The book's time begins at the clock's and follows its monotonic reading; it never goes back. After a restart, charges
// and leases that a faster clock has put into the future count as of now.
//
// # Leases
//
// In the store (limit/counter/…) each counter is one record: the charges of all relays by bucket of time, and a lease for
// each relay. The sum of both never exceeds the limit. A lease has no place in the window: it is held until it is turned
// into charges or given back. A relay spends its lease without asking anybody,
//
//	lease = free + reserved + settled but not yet written
//
// and only a request that finds too little free waits for the store. One goroutine does all exchanges, in rounds: whoever
// needs one joins the next. A round reads what is not known well enough, then writes all counters that are due in one
// commit, by compare-and-swap, and does those again that another relay was faster with. About once a second a round also
// moves what was settled from the lease to the charges and trims the lease: to twice the recent demand, at most an eighth
// of what is free (so small budgets are leased exactly as needed); a relay that is alone may keep what came back to it, up
// to half; after five idle seconds all of it goes back. A refusal rests on a look at the store within the last half
// second; it may, at worst, be for an amount that another relay holds and gives back a moment later.
//
// Slots of concurrent requests are leased the same way; they have no charges.
//
// A store that is away: leases are spent, nothing more is granted ([ErrUnavailable]), running answers that outgrow their
// reservation are cut (limits_unavailable), and all goes on when it is back. Limits that only warn need no store to be passed.
//
// # Crashes
//
// A lease ends a minute after it was last written; relays renew theirs every twenty seconds. From then on its holder may
// not spend it, and whoever sees it books it as used (a slot is free again). A relay that starts anew under the same name
// does so with what its predecessor left, as soon as it needs the counter. So a crash charges its open reservations
// in full, what had been settled within the last second, and what was leased ahead: never less than was used, and never
// more than the lease. Each start has a number (limit/holder/…), so that a process and its successor are never mistaken
// for each other. A write whose answer is lost is recognised by its number in the lease when the record is next read.
// What an upstream used beyond its reservation and the lease is in memory alone until the next round.
//
// A relay that is cut off from the store for longer than a minute finds its lease booked; what it used of it is paid by
// that, what then still runs counts a second time. Only if a request of such a relay runs on for longer than the window
// after its lease has ended can other relays grant the same amount again before the store is back.
//
// Counters nobody uses leave memory after five seconds, and the store when their window has passed.
package limit
