// Package recording keeps what was asked and answered, encrypted to an auditor's key. It exists so that a relay can write
// prompts down that it cannot read again: only the holder of the key opens them, with [Open].
//
// # Files
//
// A request has two files (mode 0600) in a folder for its day in UTC, <day>/<request id>.request.age and
// <day>/<request id>.answer.age. The request's is whole, and its digest known, before the request goes on; the answer's
// grows while it is sent, so a killed relay loses the ends of the answers that ran, and they lack their end. Who asked is
// not in them: that stands in the audit log, under the request's id, beside the SHA-256 and the size of each file.
//
// Each is a file of age (C2SP age) to every recipient. Anybody can encrypt to a public key: that the relay wrote a file is
// proven by its digest in the audit log, not by the file.
//
// # Inside
//
// Parts, each a line of JSON that says its kind, as many bytes as its field "bytes" says, and a line break:
//
//	request  v=1, id, time, resource, action, model, grant, method, path, header, bytes, of (length of the body as sent)
//	answer   v=1, id, time, status, header
//	piece    ms since the answer's first part, bytes
//	cut      the limit was reached: what comes is not recorded
//	end      ended (why), of (length of the answer)
//
// Both files end with an end. Of the headers the few that say what a body is are kept: no credentials, cookies or
// identities.
//
// # Rooms
//
//	keeper.go     the folder: bounds, recipients, retention
//	record.go     one request and its answer
//	file.go       one encrypted file
//	part.go       the parts, written and read
//	open.go       what the auditor sees
package recording
