// Package admin holds both ends of the relay's own API: the documents, the
// client that iapctl and `iap-relay admin` use, and the handlers the relay
// mounts. It exists so that a field of the API is written down once.
//
// # Three ways in
//
//	GET /.well-known/iap-relay   anybody, over TLS: what a client must know to log in (Discovery)
//	/v1/…                        a principal, on a stream of its own session with service "api"
//	/v1/admin/…                  root on the relay, over a unix socket
//
// Every body is JSON. An error is {"code": "stable_word", "message": "for a
// person", "hint": "what to do"} with a status of 400 and above.
package admin
