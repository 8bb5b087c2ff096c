package load

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Defaults of a run by hand.
const (
	DefaultFor             = 3 * time.Second
	DefaultStreamsFor      = 20 * time.Second
	DefaultTokensPerSecond = 30
	DefaultRate            = 2000
)

// Command runs tests with the arguments of a command line and prints a table to
// out.
func Command(ctx context.Context, args []string, out io.Writer) error {
	l := &Load{}
	f := flag.NewFlagSet("slmload", flag.ContinueOnError)
	url := f.String("url", "", "base URL under load")
	control := f.String("control", "http://127.0.0.1:9000", "base URL of fakeslm itself, to set its pace and read its counters")
	bulk := f.String("bulk", "", "base URL of the downloads and uploads, where a way for model APIs alone refuses them (default -url)")
	bearer := f.String("bearer", "", "token to send as Authorization: Bearer with every request under load")
	hops := f.String("hops", "", "processes to account for: name=pid,...; children count too")
	tests := f.String("tests", "lat-c1,sat-c64", "comma-separated tests: lat-cN sat-cN new-cN newsat-cN sse-N idle-N down-N up-N mix-N")
	label := f.String("label", "", "name of what is under test")
	file := f.String("json", "", "file to write the report to")
	f.DurationVar(&l.For, "for", DefaultFor, "length of each request or bulk test")
	f.DurationVar(&l.StreamsFor, "sse-for", DefaultStreamsFor, "length of each stream")
	f.Float64Var(&l.TokensPerSecond, "tps", DefaultTokensPerSecond, "tokens per second and stream")
	f.Float64Var(&l.Rate, "rps", DefaultRate, "total rate of the paced tests; a quarter of it with new connections")
	if err := f.Parse(args); err != nil {
		return err
	}
	var err error
	for _, t := range []struct {
		flag, base string
		to         *Target
	}{{"-url", *url, &l.Target}, {"-bulk", cmp.Or(*bulk, *url), &l.Bulk}, {"-control", *control, &l.Control}} {
		if *t.to, err = ParseTarget(t.base); err != nil {
			return fmt.Errorf("%s: %w", t.flag, err)
		}
	}
	l.Target.Bearer, l.Bulk.Bearer = *bearer, *bearer
	if l.Hops, err = ParseHops(*hops); err != nil {
		return fmt.Errorf("-hops: %w", err)
	}
	rep := Report{URL: *url, Label: *label, Started: time.Now().UTC().Format(time.RFC3339), LoadAvg: LoadAverage()}
	for test := range strings.SplitSeq(*tests, ",") {
		res, err := l.Run(ctx, test)
		if err != nil {
			return err
		}
		rep.Results = append(rep.Results, res)
	}
	if err := rep.Print(out); err != nil || *file == "" {
		return err
	}
	body, err := json.MarshalIndent(rep, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(*file, body, 0o644)
}

// LoadAverage is the machine's, as the kernel writes it; empty where it does not.
func LoadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg") // Linux alone has it
	return strings.TrimSpace(string(text))
}
