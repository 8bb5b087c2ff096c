// Package agent is the process beside the model: it dials out to the relay,
// checks each request a second time and passes it to its upstream. It exists so
// that the model server needs no inbound port, and so that a relay that was
// taken over can reach nothing but what the agent's own file lists.
//
// # Rooms
//
//	config.go    agent.yaml; each field says what it does; config_resource.go: those of a resource;
//	             config_secrets.go: what of it no report may hold
//	agent.go     New, Run: one set of sessions for each relay address
//	serve.go     a stream: header, check, slot, request, answer, and again; serve_tcp.go: one that is passed on whole
//	check.go     the second check: is this what the relay said it is, and may it be?
//	queue.go     whose generation is next
//	wait.go      a request waits for its slot; who streams is told so
//	inband.go    what can be said once an answer has begun
//	send.go      the request to the upstream
//	linger.go    a slot lasts until the upstream has really stopped
//	upgrade.go   WebSockets
//	upstream.go  the only addresses ever dialled
//	answer.go    the upstream's answer onto the stream
//	mask.go      the upstream's key stays here
//	health.go    is it fit, by probes and by what became of real requests; load.go: how busy, for the relays
//	probe.go     is it there, which models has it, what the relays are told
//	identify.go  which model server is it
//	join.go      enrolment with a join token
//	rotate.go    the agent's key changes without anybody noticing
//	pin.go       the relay's key may change too, if the pinned one says so; witness.go: what the relay said of its audit log
//	check_way.go  what `iap-agent check` tells, stage by stage; check_config.go: of an upstream
//
// # The queue
//
// With capacity, so many generations (chat, complete, embed, rerank,
// transcribe) run at once on a resource. The rest wait, each principal in a line
// of its own, and a slot that frees goes to the line that has had the fewest
// generations for its weight, the priority of its grant: one principal's two
// hundred requests delay another's single one by no more than one generation.
// Length and age are bounded. A refusal has the code queue_full and says position
// and estimate, from a moving average of recent generations. A client that
// streams events reads comments meanwhile, ": queued position=3 estimate=12s",
// and then its answer, or an error event if that failed.
//
// A slot is held until the answer is whole. If the request ends before, its
// connection is half-closed, which tells every server that nobody listens, and
// the slot frees when the server has closed its side, or after 30 s.
package agent
