// Package tunnel carries streams between relay, users and agents over one authenticated TLS connection, its session.
// It exists because a multiplexer alone knows neither who is at the other end nor why a stream ended: here every session
// belongs to a proven key, and every end of a stream has one meaning.
//
// The layers, from below:
//
//	TCP, perhaps through an HTTP proxy          Dialer
//	TLS 1.3, ALPN http/1.1                      Dialer, the relay's HTTPS server
//	HTTP/1.1 Upgrade: iap-tunnel/1              Dialer, Upgrade
//	hello, challenge, proof, welcome            Connect, Accept
//	frames of yamux, with codes in resets       frameReader, frameWriter, streamTable
//	streams: header, reply, bytes               Session, Stream
//
// # Handshake
//
// Before the multiplexer, four messages, each a length of four bytes, big endian, and JSON. 64 KiB and 10 s are all a
// stranger gets. Unknown fields are passed over; anything else unexpected ends the connection.
//
//	client                                      relay
//	hello{version, role, class, relay, agent_id, token, software, public_key, ephemeral}  →
//	                                            Authenticate: who would it be? changes nothing
//	←  challenge{binding, nonce, relay_key, ephemeral, chain}
//	proof{signature}  →
//	                                            the proof holds; Bind: first use, registration
//	←  welcome{session, signature, expires_ms, max_streams}
//
// Instead of challenge or welcome the relay may send {code, message} and close. The client signs, with the Ed25519 key
// of hello, the label "iap-session-v1" and, each with a length of four bytes in front: role, class, the relay's name as
// dialled, binding, TLS exporter ("EXPORTER-iap-session-v1", 32 bytes; empty with binding nonce), the relay's nonce, the
// SHA-256 of the token's payload (empty for agents), the agent's id (empty for users), public key, both ephemeral keys
// (client's, relay's), the relay's key. Its SHA-256 is the transcript hash. The relay signs "iap-welcome-v1", that hash,
// the session id and, as text, the two numbers of welcome. So a proof is worth nothing on another connection, to another
// relay, in another role or with another token; and neither signature can be taken for the other.
//
// The first frames may follow right behind: yamux begins with the next byte.
//
// # Frames
//
// The format of yamux 0.1 (version 0): version, type, flags, stream, length, then data. What differs:
//
//   - The Length of an RST frame is the Code of the abort. In yamux it means nothing. So the code arrives with the abort,
//     and cannot lose a race with data.
//   - A stream lost without FIN or RST is lost with its session: a *SessionError, never io.EOF.
//   - Data frames of ours carry at most 32 KiB; larger ones are read up to the window.
//   - A SYN without RST or FIN, an ACK once, nothing behind a FIN, no window beyond 4 MiB, no id 0: else the session ends.
//   - Frames that carry nothing, yamux's pings among them, are counted and end the session when they flood.
//
// The client opens odd ids. Id 1 comes first and is the control stream.
//
// # Control stream
//
// Messages of at most 64 KiB, each a length of four bytes and JSON {type, …}. Unknown types are passed over.
//
//	refresh    id, token, signature     user → relay: a new token; the signature is over "iap-refresh-v1", the transcript
//	                                    hash and the SHA-256 of the new token's payload
//	refreshed  id, expires | code, text relay → user
//	withdraw   code                     user → relay: the right to this session is gone: end what runs, then the session
//	announce   id, resources            agent → relay: all it offers, replacing what was said before
//	                                    with kind "check" it only asks whether it may
//	announced  id | code, text          relay → agent
//	load       loads                    agent → relay: what runs and what waits on each resource; no answer
//	rotate     id, key, signature, proof  agent → relay: a new key in the place of the session's. The old key signs
//	                                    "iap-agent-successor-v1", the new one "iap-agent-possession-v1"; then both the
//	                                    transcript hash, the old and the new key, each with a length of four bytes
//	rotated    id | code, text          relay → agent
//	renew_key  id                       relay → agent: make a new key, please
//	key_renewed  id | code, text        agent → relay
//	relay_keys chain                    relay → client: how the relay's keys name each other, as in challenge
//	checkpoint id, text, proof, chain   relay → agent: the latest checkpoint of the relay's audit log, a proof that it
//	                                    extends the one that the agent holds, and the chain as in relay_keys
//	witnessed  id, text, kind           agent → relay: the checkpoint that it holds; kind "conflict" if the one shown does
//	                                    not extend that
//	goaway     text                     either: open no more streams here
//	ping, pong id                       either: a sign of life, after 5 s of silence in use, 60 s else
//	notice     kind, text               relay → client: for a person or the log
//	reason     code, text               either: the last words of a session
//
// # Streams
//
// A stream begins with a Header: four bytes of length, JSON of at most 16 KiB. The opener sends payload right behind it;
// the acceptor may answer with a Reply of the same shape, then bytes. Streams between relay and agent are warm: after one
// request comes the next Header.
//
// On the session of an agent each Header is sealed: Seq rises with every header of the session, strictly within a stream,
// and MAC is HMAC-SHA256 over the label "iap-header-v1", the sender's role ("relay" or "agent"), the stream's id, Seq and
// every other field in the order of the struct, texts with a length of four bytes, numbers in eight, an absent Local as 0.
// The key is HKDF-SHA256 of the X25519 secret of both ephemeral keys, salted with the transcript hash, for
// "iap-stream-mac-v1". A number seen before, or 16,384 behind the newest, is a replay (RFC 4303, section 3.4.3).
//
// A Reply that refuses a request may say that nothing of it has left for the upstream (NotSent). That claim alone is
// sealed, by an HMAC-SHA256 under the same key over the label "iap-reply-v1", the sender's role, the stream's id, the Seq
// of the header that it answers, OK and NotSent as one byte each, and the other fields in the order of the struct. Whoever
// reads it without a seal that holds reads that the request may have been sent.
//
// # Versions
//
//	1  2026-11
package tunnel
