// Package relay is the public process: the policy enforcement point. It is the
// one place where the tunnel, identity and policy meet, and it exists so that
// each of those three can stay ignorant of the others.
//
// # Rooms
//
//	config.go        the configuration file; each field says what it does
//	relay.go         New wires, Run serves, Stop drains
//	public.go        the one TLS port: discovery, health, enrolment, front door, upgrade
//	authenticate.go  who opens a session: users' tokens and keys, agents' keys
//	binding.go       a token belongs to the first key that presents it
//	sessions.go      the live sessions, and what runs on them
//	agents.go        which agent sessions serve a resource
//	streams.go       a user's stream: decide, then HTTP under the guard or a splice
//	decide.go        principal and resource → policy input → decision
//	forward.go       the guard's way to an agent, over warm streams
//	record.go        what the guard and the sessions tell the audit log
//	api.go           the relay's own API on a stream, and for root on a unix socket
//
// Everything that is denied is denied here or in the guard, never in the
// client.
package relay
