// Command fakeslm serves package fakeslm: a model server with an exact pace, to
// measure tunnels with.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"iap/internal/bench/fakeslm"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := fakeslm.Command(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "fakeslm:", err)
		stop()
		os.Exit(1)
	}
}
