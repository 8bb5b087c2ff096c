// Package replay puts the decisions of an audit log to another policy and tells
// which would come out differently.
//
// It exists so that an operator sees before a change of the grants whom it takes
// something from, and whom it gives something to. It decides on nothing but what
// the log says was known at the time; a decision whose facts are not in the log is
// counted and left alone.
package replay
