// Command iapctl is the user's command line: it logs in, makes remote resources local and shows what the relay allows. It exists
// to print; what it prints is decided by the relay, and how bytes flow by internal/connect.
//
// One file holds one command. Beside them:
//
//	app.go      the run function, global flags, profile in use
//	failure.go  every error as a person sees it, and the one table of codes and exit statuses
//	output.go   text and JSON, colour, tables; clean.go takes control characters out of what others wrote
//	schema.go   the documents of -o json
//	doctor*.go  doctor: its stages, by the part of the way that they look at
//	relay.go    discovery, sessions and the relay's API; credentials.go who is logged in
package main
