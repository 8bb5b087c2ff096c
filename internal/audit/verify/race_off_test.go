//go:build !race

package verify

// everyByte is how far apart the bytes are that a test changes: the race detector has seen all of this code after a few.
const everyByte = 1
