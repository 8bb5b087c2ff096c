//go:build !linux

package clock

import "time"

// Now is nanoseconds on the wall clock: shared by all processes, though a step
// of the clock while a test runs spoils that test.
func Now() int64 { return time.Now().UnixNano() }
