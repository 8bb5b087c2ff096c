// Package e2e tests the product as its users meet it: the three binaries, built once, as processes of their own with
// real TLS, a real device login, real files and a real kill -9.
//
// It exists because each package below proves its own part, and only running processes prove what lies between them:
// that a record is on the disk before a request is sent on, that a listener outlives its relay, that an answer which
// was cut never looks whole. It holds tests alone; nothing imports it.
//
// The parts of a test:
//
//	system_test.go    a relay with its provider, agents and grants
//	user_test.go      one person with an iapctl configuration of their own
//	upstream_test.go  servers behind the agent: the demo model with a recorder, and one that misbehaves on request
//	caller_test.go    a plain HTTP client of a local listener, and streamed answers as it reads them
//	records_test.go   what the audit log says afterwards
//	process_test.go   one running program, its output and its end
//
// Nothing here waits for a time to pass: a test waits for a line of output, a record, a count, and fails when its
// deadline comes first. No test asks how long something took.
package e2e
