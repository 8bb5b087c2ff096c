// Package relaykey is how a relay changes its long-term key and is still
// believed: the key in force, the one to come, and the statements by which each
// names the next. It exists so that the relay, which makes them, and agents and
// iapctl, which pin a key, read one definition of them.
//
// # Statements
//
// A Link says that one key is followed by another from a time on. Both keys sign
// it: the old one, because it alone is believed, and the new one, because nobody
// names a key that is not his. Links have rising numbers, one for each key.
//
//	{old, new, number, from, signature, proof}
//
// Signature is by old, proof by new, each over a label of its own
// ("iap-relay-successor-v1", "iap-relay-possession-v1"), the number, from in Unix
// seconds, and both keys, each part with a length of four bytes in front.
//
// # A rotation
//
// The relay prepares: it makes the next key and shows the link in discovery, in
// each handshake and on the control streams of live sessions. Whoever pins the
// current key verifies the link and keeps it. At the link's time the relay puts
// the new key in force. Who was away meanwhile finds the link, and those of up to
// MaxChain-1 rotations before, in the handshake, and follows them from the key it
// pins. It keeps the new key once the relay has proven to hold it.
//
// What a Pin refuses: a key that no chain of links from the pinned one leads to;
// a key that was pinned before; another successor than the one it has heard of;
// more links than MaxChain, before looking at any.
//
// Whoever steals a key can name a successor of his own to those who still pin it:
// a chain cannot tell. After a theft the agents enrol anew (docs/operations.md).
package relaykey
