package relay

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"iap/internal/state/pgtest"
)

// postgres is the server of the tests with several relays, started by the first of them.
var postgres pgtest.Server

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := postgres.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}))
}
