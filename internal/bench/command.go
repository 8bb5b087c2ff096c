package bench

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"iap/internal/bench/system"
)

// ErrFailed is returned if requests failed: slow is a figure, wrong is a failure.
var ErrFailed = errors.New("requests failed")

// Command measures with the arguments of a command line. The tables go to out,
// what happens meanwhile to progress. model is the command of the model server,
// a process of its own.
func Command(ctx context.Context, args, model []string, out, progress io.Writer) (err error) {
	f := flag.NewFlagSet("tunnelbench", flag.ContinueOnError)
	bin := f.String("bin", "bin", "folder of iap-relay, iap-agent and iapctl")
	quick := f.Bool("quick", false, "one short round: does it work at all?")
	dir := f.String("dir", "", "folder to keep bench.json and the hops' logs in (default a new temporary one)")
	rounds := f.Int("rounds", 0, "rounds (default 5, or 1 with -quick)")
	tests := f.String("tests", "", "only these tests, comma-separated, such as lat-c1,sse-50,down-16")
	idle := f.Int("idle", 0, "also open this many streams that hardly say anything, such as 10000")
	length := f.Duration("for", 0, "length of each request or bulk test")
	streams := f.Duration("sse-for", 0, "length of each stream")
	if err := f.Parse(args); err != nil {
		return err
	}
	p := Full()
	if *quick {
		p = Quick()
	}
	if *tests != "" {
		if err := p.Only(*tests); err != nil {
			return err
		}
	}
	if *idle > 0 {
		p.Idle(*idle)
	}
	override(&p.Rounds, *rounds)
	override(&p.For, *length)
	override(&p.StreamsFor, *streams)
	work, keep, err := folders(*dir)
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	return measureAll(ctx, p, system.Options{Bin: *bin, Dir: work, Model: model, Streams: p.Streams()}, keep, out, progress)
}

func override[T comparable](field *T, value T) {
	var zero T
	if value != zero {
		*field = value
	}
}

// folders makes a working folder with a short path, since a unix socket lies in
// it, and the one that is kept.
func folders(dir string) (work, keep string, err error) {
	if dir == "" {
		if keep, err = os.MkdirTemp("", "tunnelbench-"); err != nil {
			return "", "", err
		}
	} else if keep, err = filepath.Abs(dir); err == nil {
		err = os.MkdirAll(keep, 0o755)
	}
	if err != nil {
		return "", "", err
	}
	work, err = os.MkdirTemp("", "iap-bench-")
	return work, keep, err
}

// measureAll runs the system, the plan and the tables.
func measureAll(ctx context.Context, p Plan, o system.Options, keep string, out, progress io.Writer) (err error) {
	tell := func(line string) { fmt.Fprintln(progress, line) }
	tell("starting model server, identity provider, relay, agent and client")
	s, err := system.Start(ctx, o)
	defer func() { err = errors.Join(err, keepLogs(o.Dir, keep)) }()
	if err != nil {
		return err
	}
	results, err := Run(ctx, s, p, tell)
	results.Version = s.Version
	err = errors.Join(err, s.Close())
	if len(results.Measurements) == 0 {
		return err
	}
	file := filepath.Join(keep, "bench.json")
	body, jsonErr := json.MarshalIndent(results, "", " ")
	if jsonErr == nil {
		jsonErr = os.WriteFile(file, body, 0o644)
	}
	fmt.Fprintln(out)
	if err := errors.Join(err, jsonErr, results.Print(out)); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nraw results: %s\n", file)
	if n, examples := results.Failed(); n > 0 {
		for _, e := range examples {
			fmt.Fprintln(out, e)
		}
		return fmt.Errorf("%d %w", n, ErrFailed)
	}
	return nil
}

// keepLogs moves the hops' logs to where the results are.
func keepLogs(work, keep string) error {
	logs, err := filepath.Glob(filepath.Join(work, "*.log"))
	for _, log := range logs {
		data, readErr := os.ReadFile(log)
		if readErr == nil {
			readErr = os.WriteFile(filepath.Join(keep, filepath.Base(log)), data, 0o644)
		}
		err = errors.Join(err, readErr)
	}
	return err
}
