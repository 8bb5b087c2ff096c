// Package system runs a whole tunnel on loopback for measuring: the real
// iap-relay, iap-agent and iapctl, each a process of its own as it is used, set
// up by the commands an operator types. It exists so that the processor time
// and the memory of each hop can be told apart.
//
// The identity provider is the development one, in the calling process; the
// device login is approved as a person would. A folder holds everything; a hop's
// log is NAME.log in it.
package system
