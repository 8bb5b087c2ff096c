// Package audit is the relay's append-only log of events: who asked for what, what was decided, how it ended.
//
// It exists so that no request reaches a model without a record: the guard asks [Log.Record] before a byte goes
// upstream, and goes no further when the log cannot take the record. The log therefore fails closed for decisions and
// stays open for what takes rights away, survives kill -9 at any moment, and cannot be filled by being refused.
//
// # Files
//
// The directory (mode 0700) holds segments named audit-<number of the first record, 20 digits>.jsonl (mode 0600), so
// that names sort as their records do, and beside them "lock" (one process writes), "reserve" (see below) and
// <segment>.torn, where an unfinished last line was put that a crash had left. A segment that has grown by
// [Options.SegmentBytes], or is older than [Options.SegmentAge], is followed by a new one; no segment is written to after
// that. With [Options.Keys] there are also <segment>.hashes, <segment>.checkpoints, relay-keys.json and, with
// [Options.Retain], expired.json: docs/audit.md says what is in them and what they prove.
//
// # Schema, version 1
//
// One JSON object per line, UTF-8, at most [MaxLine] bytes, no duplicate names. Fields that are empty or zero are left
// out, but for the first five. Readers ignore fields they do not know and refuse other values of "v".
//
//	v            1
//	seq          number of the record: 1, 2, 3, … over all segments and restarts, without gaps
//	time         when it happened, RFC 3339 with nanoseconds, UTC
//	mono         nanoseconds since the log was opened; never falls within one run, whatever the wall clock does
//	kind         decision, outcome, login, session, agent, admin, subject, limit, policy, relay, denied_count
//	request      id that a decision and its outcome share
//	session      id of the session; its begin and end are events of kind session
//	principal    issuer's alias, "/", subject
//	issuer       issuer's alias or URL
//	agent        id of the agent
//	resource     name of the resource
//	action       action from the closed vocabulary
//	model        canonical name of the model
//	grant        name of the grant that allowed
//	via          tunnel, bearer or local
//	source       address of the peer
//	binding      how the token was bound to the session's key: nonce, first-use, none
//	subject      of a decision: names the subject event that tells what the policy knew of the principal
//	facts        of a subject event: issuer, subject, groups, claims, mfa and more as a text in JSON
//	method path  of the request as forwarded; a path has no query
//	decision     allow or deny
//	reason       stable code: why it was decided so; for relay events, which event it is
//	revision     of the policy
//	message      a sentence for people
//	status       HTTP status of the answer
//	bytes_in     bytes of the request
//	bytes_out    bytes of the answer
//	ttft_ms      milliseconds to the first byte of the answer
//	duration_ms  milliseconds in all
//	tokens_in tokens_out   and
//	usage        where these figures come from
//	ended        why it ended
//	count        of denied_count: how many refusals; of segment_start and audit_recovered: see below
//	detail       object of at most 16 strings, by name
//
// A subject event stands before the first decision that names it, and again a day later and after a restart.
//
// Names and ids are cut at 512 encoded bytes, paths and messages at 2,048, facts at 8,192, names of details at 64; what was cut ends in
// "…". Characters that do not print (controls, direction marks, private use) are escaped, invalid UTF-8 is replaced by
// U+FFFD, so that a line can be shown on a terminal.
//
// # Decisions and outcomes
//
// A decision with decision=allow and a request is open until an outcome has the same request; there is one for each. The
// first record of a segment is a relay event with reason=segment_start; its count tells how many decisions were open
// then, and as many relay events with reason=open_decision follow and repeat who and what they were about, with
// detail.decision_seq leading to the decision itself. So whoever opens the log finds every open decision in the last
// segment (or, after a crash while it was begun, in the one before). [Open] ends those of a run that died with the
// outcome ended=relay_lost.
//
// With [SyncGroup] a decision whose sync failed may or may not be on the disk; nobody acts on it, and it gets the
// outcome ended=audit_unavailable.
//
// # The tree
//
// One goroutine reads what was written back from the files, adds each line as it stands to a Merkle tree (package tree)
// and has the root signed (package checkpoint) every ten seconds if there is something new, when a segment is begun and on
// Close. No record waits for it and it stops none; [Log.Proving] says what keeps it from signing. A checkpoint is signed
// when its lines are on the disk. At a start the tree is taken up from the hash files, the last segment's from its lines.
// Hashes that a checkpoint covers and that are not their lines' are set aside, with a relay event reason=hashes_mismatch;
// lines that are not those of the last checkpoint end the signing, with reason=tree_mismatch, until the folder is changed.
// What expires is deleted by whole segments, behind a signed head and a relay event reason=records_expired; a segment with
// an open decision, and all behind it, stays.
//
// # A full disk
//
// A record is written by one call; one that does not fit is undone, and [Log.Record] returns [ErrUnavailable]. Outcomes,
// admin, session and relay events then take their space, 64 KiB at a time, from the file "reserve", which holds it from
// the start. Decisions are refused until the reserve is whole again; each one tries, so traffic comes back without a
// restart, and a relay event with reason=audit_recovered counts the records that were refused meanwhile.
//
// # Refusals
//
// [Log.Denied] writes ten refusals a minute in full for each source (the address without its port, an IPv6 address's
// /64, and the principal if one was verified), a thousand for all. The rest is counted and written each minute and on
// Close as denied_count: "count" refusals since detail.first, and a detail kind/reason for each reason. More than 1,024
// sources are counted together (detail.sources=many). Full records and counts add up to the exact number of refusals,
// except that a relay that is killed loses the counts of its last minute.
//
// # Reading
//
// [Search] and [Follow] read the files of a log in use and share nothing with the writer: no reader delays a record. A
// search is bounded in records, bytes and time and goes on where it ended; a follower that falls 16 MiB behind is taken
// to the end and told how many records it missed.
package audit
