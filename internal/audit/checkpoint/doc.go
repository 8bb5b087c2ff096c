// Package checkpoint is a relay's signed word about its audit log: so many lines, with this root. It exists so that the
// relay that signs, the agent that keeps and the auditor who verifies read one definition, and none of them needs the
// others.
//
// # Form
//
// A checkpoint is a signed note (golang.org/x/mod/sumdb/note) with the text of C2SP's tlog-checkpoint:
//
//	relay.example.com/audit/main          origin: the relay's public name, "/audit/", the instance
//	128734                                lines in the tree
//	CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=   root, RFC 6962
//	time 2026-11-24T09:30:00.123Z         when it was signed
//	expired 4711 2026-05-28T00:00:00.000Z   only in the head of a log whose first lines are gone: these are they, up to
//	                                      record 4711, and the next was written then
//
//	— relay.example.com/audit/main dUaUY4…   Ed25519; the key's name is the origin
//
// Readers pass over further extension lines. A note that is not written as this package would write it is refused, so
// that each of its bytes counts.
//
// # Keys
//
// The relay's key signs. A key that gave way to the next is believed by the statements of internal/relaykey, which both
// keys sign: a Keyring follows them from the keys that its user trusts, to older and to newer ones. Keys that came later
// stay later: behind a checkpoint of one key none of an older key is believed.
//
// # What a witness judges
//
// Judge holds a new checkpoint against the one that is held. It extends it, by a proof; or it is not known whether it
// does; or it cannot: fewer lines at a later time, or another root for the same lines. That is a log that was rolled back
// or rewritten, and the two signed notes prove it to anybody.
package checkpoint
