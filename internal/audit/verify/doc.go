// Package verify says what a folder with an audit log proves, without the relay: that nothing in it was changed, removed,
// added or put in another place, up to which record its own checkpoints prove that, up to which record each witness does,
// and on what the rest stands. It exists apart from the log because the one who verifies trusts neither the relay nor
// whoever keeps the files.
//
// Everything is read once, from the first line to the last, holding one line at a time: years of segments take time and
// no memory.
package verify
