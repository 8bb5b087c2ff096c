package fakeslm

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	defaultTokens = 16
	headerTimeout = 5 * time.Minute // thousands of connections may wait for their turn to speak
)

// Command runs the model server with the arguments of a command line until ctx
// ends. Once it listens it writes one line for each address to out:
// "listening on 127.0.0.1:9000".
func Command(ctx context.Context, args []string, out io.Writer) error {
	var p Pace
	f := flag.NewFlagSet("fakeslm", flag.ContinueOnError)
	listen := f.String("listen", "127.0.0.1:9000", "comma-separated addresses to listen on")
	f.IntVar(&p.Tokens, "tokens", defaultTokens, "tokens per answer when the request names no max_tokens")
	f.Float64Var(&p.PerSecond, "tps", 0, "tokens per second and stream; 0 for as fast as possible")
	f.DurationVar(&p.FirstWait, "ttft", 0, "wait before the first token")
	if err := f.Parse(args); err != nil {
		return err
	}
	server := &http.Server{Handler: New(p).Handler(), ReadHeaderTimeout: headerTimeout}
	listeners, err := listenAll(ctx, strings.Split(*listen, ","))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	var group sync.WaitGroup
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		fmt.Fprintln(out, "listening on", l.Addr())
		group.Go(func() {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
				_ = server.Close() // one address lost: the others end too
			}
		})
	}
	group.Wait()
	close(failed)
	return <-failed
}

func listenAll(ctx context.Context, addresses []string) ([]net.Listener, error) {
	var all []net.Listener
	for _, address := range addresses {
		var config net.ListenConfig
		l, err := config.Listen(ctx, "tcp", address)
		if err != nil {
			for _, open := range all {
				_ = open.Close()
			}
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}
