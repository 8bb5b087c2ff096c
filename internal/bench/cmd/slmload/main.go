// Command slmload runs package load by hand: it loads a fakeslm model server,
// directly or through any tunnel, and prints what that cost.
//
//	slmload -url http://127.0.0.1:11434 -control http://127.0.0.1:9000 \
//	    -hops relay=123,agent=124 -tests lat-c1,sat-c64,sse-500,down-1 -json out.json
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"iap/internal/bench/load"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := load.Command(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "slmload:", err)
		os.Exit(1)
	}
}
