// Command tunnelbench measures the product against no tunnel, on loopback, with
// the real binaries, and prints figures, ratios and goals.
//
//	tunnelbench -bin bin [-quick] [-rounds 5] [-tests lat-c1,sse-50] [-idle 10000] [-dir results]
//
// With "fakeslm" as first argument it is the model server that it measures with.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"iap/internal/bench"
	"iap/internal/bench/fakeslm"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx))
}

// run does what the command line says and returns the exit status.
func run(ctx context.Context) int {
	self, err := os.Executable()
	if err == nil {
		if len(os.Args) > 1 && os.Args[1] == "fakeslm" {
			err = fakeslm.Command(ctx, os.Args[2:], os.Stdout)
		} else {
			model := []string{self, "fakeslm", "-listen", "127.0.0.1:0"}
			err = bench.Command(ctx, os.Args[1:], model, os.Stdout, os.Stderr)
		}
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "tunnelbench: interrupted; every process has ended")
		return 1
	default:
		fmt.Fprintln(os.Stderr, "tunnelbench:", err)
		return 1
	}
}
