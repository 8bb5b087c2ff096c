// Package agent is the process beside the model: it dials out to the relay,
// checks each request a second time and passes it to its upstream. It exists so
// that the model server needs no inbound port, and so that a relay that was
// taken over can reach nothing but what the agent's own file lists.
//
// # Rooms
//
//	config.go    agent.yaml; each field says what it does
//	agent.go     New, Run: one set of sessions for each relay address
//	serve.go     a stream: header, check, request, answer, and again
//	check.go     the second check: is this what the relay said it is, and may it be?
//	upstream.go  the only addresses ever dialled
//	answer.go    the upstream's answer onto the stream
//	probe.go     what server is it, is it there, which models has it
//	join.go      enrolment with a join token
//	check_config.go  what `iap-agent check` tells
package agent
