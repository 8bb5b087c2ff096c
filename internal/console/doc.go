// Package console is the operator's commands: who is connected, end it, refuse
// it, how the relay is, what was decided. It exists because they are typed at two
// ends, as `iapctl …` by whom the policy lets use the verb, and as `iap-relay
// admin …` by root on the relay's machine, and must ask, do and show the same.
//
// A Console builds cobra commands over admin.Client; its Host is the program they
// are part of, and knows how to reach the relay. What is printed is a table of 80
// columns or, with -o json, one document (documents.go) that both programs share.
// Words of others (principals, names, sources) are cleaned where a row is made.
//
// # Rooms
//
//   - console.go: Host, and what every command does
//   - documents.go: the documents of -o json
//   - pick.go: which id was meant by its beginning
//   - sessions.go, principals.go, agents.go, resources.go, tokens.go, keys.go, budgets.go,
//     policy.go, explain.go, status.go: a group of commands each
//   - usage.go: what was used; usagetable.go: how that is shown
//   - audit.go: follow the audit log; auditquery.go: search it, a relay's or that of a folder
//   - proof.go: verify a log offline, make and check proofs
//   - auditexport.go: everything about one person, as a table or with proofs
//   - line.go: a record of it as one line
package console
