// Package relay is the public process: the policy enforcement point. It is the
// one place where the tunnel, identity and policy meet, and it exists so that
// each of those three can stay ignorant of the others.
//
// # Rooms
//
// The process:
//
//	relay.go, drain.go, certificate.go   New wires, Run serves, the end drains; relay.yaml is in settings
//	stored.go, restored.go               what is kept in the state store; what of it a backup may not bring back
//
// Who comes in:
//
//	public.go        the one TLS port, and what it tells anybody
//	strangers.go     how many connections a source may have before it is known
//	handshakes.go    how many handshakes, and how many tries to join
//	authenticate.go  users' tokens and keys, agents' keys
//	binding.go       a token belongs to the first key that presents it
//	rotate.go        an agent's key gives way to the next; relaykeys.go: so does the relay's own
//	killed.go        what an administrator refused, and whose time is over
//	logout.go, loggedout.go   what a provider says of logins that have ended, and which those are
//	enrol.go         join tokens, and agents that use them
//	frontdoor.go     bearer tokens and keys over plain HTTPS; crossorigin.go: which web pages may ask;
//	                 atdoor.go: what runs there, and ends
//	keys.go          keys for programs: who holds one, and its end; keydecide.go: what one may do
//
// What runs:
//
//	serve.go         a session from its first stream to its end
//	sessions.go      the live sessions
//	agents.go        the enrolled agents and their sessions; link.go: one session and its warm streams
//	fleet.go         what the agents of a resource offer together, and which of them serves a request
//	streams.go       a user's stream: authorise, then HTTP under the guard or a splice
//	line.go          whose question comes when
//	decide.go        principal and resource → policy input → decision
//	forward.go       the guard's way to an agent, over warm streams; failover.go: to another, while nothing was sent
//	limits.go        what a grant's limits leave, and who is told; budgets.go: showing and resetting what is used
//	ids.go           whose the ids are that model servers hand out
//	record.go        what the guard and the streams tell the audit log; subjects.go: what the policy knew of whom
//	recording.go     prompts and answers, for an auditor to read
//	witness.go       the log is signed, and agents keep what was signed; sinks.go: others get a copy
//	usage.go         what they tell the book of usage; usageapi.go: questions about it
//	live.go          asking the policy again about what runs
//	identity.go, assertion.go   what the upstream is told of the caller
//
// Several relays over one state:
//
//	cluster.go       who this one is, and what of the state it follows
//	heard.go         doing what was decided at others; owed.go: what the state has yet to be told
//	peers.go         asking the others, so that one answers for all
//	sharedkeys.go    the next relay key, which they share
//
// Its own API:
//
//	api.go, adminapi.go, adminkill.go    what a principal has done, and what administrators have
//	people.go, jointokens.go             sessions and principals for administrators; join tokens
//	auditread.go, policyshow.go          searching and following the audit log; the policy in force
//	admingate.go                         who may use which verb, and the record of it
//	adminsocket.go, peeruid.go           the same for root on a unix socket, and who is at the other end
//	fleetapi.go      resources with the health and load of their agents
//	keysapi.go, explain.go, stepup.go    its parts: making keys; why the policy decides so; what a fresh login would change
//
// Everything that is denied is denied here or in the guard, never in the
// client.
package relay
