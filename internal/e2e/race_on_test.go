//go:build race

package e2e

// raceFlags build the programs as this test was built: a race in one of them fails the test that met it.
var raceFlags = []string{"-race"}
