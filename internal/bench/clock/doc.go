// Package clock reads a clock that all processes of one machine share. It
// exists so that a sender can stamp its data and a receiver in another process
// can tell how long the way in between took.
package clock
