// Package cluster lets several relays over one state act as one: each knows which others there are, hears what is decided
// at any of them, and can ask them all a question.
//
// It exists so that the relay, which knows what a revocation or a session is, need not know how relays find each other.
// Nothing here connects one relay to another: all goes through the state that they share, so that a network in which
// relays reach the database and not each other is enough, and whoever may write the state is the only one to be trusted.
//
// # Rooms
//
//	instance.go   a relay's own id, kept beside its keys
//	member.go     which relays there are: heartbeats with an end
//	follow.go     a prefix of the state, from its list to its last change
//	ask.go        a question to all others, and their answers
//	lock.go       one relay at a time
//
// # In the state
//
//	relay/INSTANCE          member: there while the relay lives, renewed every 10 s for 30 s
//	ask/ID                  question: from whom, of what kind
//	answer/ID/INSTANCE      one relay's answer to it
//
// Questions and answers expire after half a minute. A relay that has not answered within the time that the asker gives is
// named as silent: an answer is never taken for complete that is not.
package cluster
