// Package admin holds both ends of the relay's own API: the documents, the
// client that iapctl and `iap-relay admin` use, and the handlers the relay
// mounts. It exists so that a field of the API is written down once.
//
// # Three ways in
//
//	GET /.well-known/iap-relay   anybody, over TLS: what a client must know to log in (Discovery)
//	/v1/…                        a principal, on a stream of its own session with service "api"
//	/v1/admin/…                  a principal whom the policy gives the verb, on that stream;
//	                             root on the relay, over a unix socket
//
// Every body is JSON. A GET asks by its query, a POST by its body. An error is
// {"code": "stable_word", "message": "for a person", "hint": "what to do"} with a
// status of 400 and above.
//
// # Verbs
//
// The calls of administrators stand in one table (routes.go), each with its verb,
// an action of the policy. Before a method of AdminBackend is reached, the Gate has
// said that the caller may use the verb; each call is recorded with its verb, what
// it is about and whether it was refused. What takes rights away is done first and
// recorded after, so that a full disk keeps nobody in.
package admin
