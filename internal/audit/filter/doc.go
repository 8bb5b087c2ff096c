// Package filter selects records of the audit log by a free expression, for whoever
// asks more than the fields of audit.Query can say.
//
// It exists so that one place knows the language: that of github.com/expr-lang/expr,
// which has no effects, without its ranges, variables and most of its functions: what
// is left takes time and memory in proportion to the expression and the record. The names are
// those of the schema (package audit); a field that a record has not is empty, zero or
// false. Names and types are checked before the first record is read, so a mistake is
// an error with its place and never a search that finds nothing.
//
// It runs where the question was asked, never at the relay: nobody's expression costs
// others time.
//
// # Rooms
//
//	filter.go   New compiles, Match asks one record
//	bounds.go   what of the language is left out
//	fields.go   what of a record the expression sees, by its name in the schema
package filter
