// Package statetest is the conformance suite of state.Store.
//
// It exists so that a store is judged by one set of promises, whatever it is made of: the relay relies on them for
// "spent once", "first key wins" and "revoked is seen at once", and on nothing else.
package statetest
