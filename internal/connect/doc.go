// Package connect makes a remote resource appear on a local port: it keeps the sessions of one profile to its relay, listens
// on loopback, and carries each accepted connection over a stream. It exists so that cmd/iapctl only prints: everything here
// runs the same in the foreground, in the background and in tests.
//
// The parts, by file:
//
//	sessions.go   two sessions to the relay, opened ahead of need; line.go keeps each of them
//	renew.go      their renewal in place, and their end when the provider ends the login; loginwatch.go notices logins and logouts
//	examine.go    one session, with what was found at each stage of the way
//	ports.go      which local port a resource has, and who sits on it if it is taken
//	peer*.go      whose process is at the other end of a loopback connection
//	forward.go    listener → stream → splice
//	refuse.go     what an application reads when there is no session, in the protocol it speaks
//	detach*.go    connects in the background
//	running.go    the files by which other processes find and stop a connect
//
// Nothing here parses the application's requests beyond the first line, and that only to shape an error: the rules for Host,
// Origin and the local key travel to the relay in the stream's header and are applied there to every request.
package connect
