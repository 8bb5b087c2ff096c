package connect

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

const (
	detachReady = 60 * time.Second // resolving, logging in from a stored token and listening, on a slow network
	maxReport   = 64 << 10         // one JSON line
	maxLogTail  = 4 << 10
)

// Background is a process that goes on after this one has ended.
type Background struct {
	Program string   // what to run: os.Executable()
	Args    []string // without the program
	Env     []string // nil: this process's
	LogFile string   // where its narration goes, mode 0600, begun anew
}

// BackgroundError says how a background process ended before it was ready.
type BackgroundError struct {
	Status int    // its exit status
	Report string // what it wrote to stdout
	Log    string // end of its narration
}

func (e *BackgroundError) Error() string {
	return fmt.Sprintf("the process in the background ended with status %d", e.Status)
}

// Start runs the process apart from this terminal and waits until it has written one line to stdout, which is returned: its report
// that it is ready. If it ends or says nothing in time, it is stopped and the error is a *BackgroundError.
func (b Background) Start(ctx context.Context) (string, error) {
	log, err := os.OpenFile(b.LogFile, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", fmt.Errorf("open log of the background process: %w", err)
	}
	defer log.Close()
	reader, writer, err := os.Pipe()
	if err != nil {
		return "", fmt.Errorf("make pipe: %w", err)
	}
	defer reader.Close()
	cmd := exec.Command(b.Program, b.Args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = b.Env, writer, log
	detach(cmd)
	err = cmd.Start()
	_ = writer.Close() // the child's copy is the only one now: its end is our EOF
	if err != nil {
		return "", fmt.Errorf("start background process: %w", err)
	}
	report, err := readReport(ctx, reader)
	if err == nil {
		return report, cmd.Process.Release()
	}
	if !errors.Is(err, io.EOF) { // at EOF it ends by itself, with a status worth knowing
		_ = cmd.Process.Kill()
	}
	_ = cmd.Wait()
	return "", &BackgroundError{Status: cmd.ProcessState.ExitCode(), Report: report, Log: b.logTail()}
}

// readReport reads one line within detachReady. The pipe's deadline ends the read, so no goroutine outlives the call.
func readReport(ctx context.Context, r *os.File) (string, error) {
	deadline := time.Now().Add(detachReady)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	_ = r.SetReadDeadline(deadline) // pipes on Windows have none: there the child's own limits hold
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	line, err := bufio.NewReader(io.LimitReader(r, maxReport)).ReadString('\n')
	line = strings.TrimSpace(line)
	if err != nil {
		return line, fmt.Errorf("read report: %w", err)
	}
	return line, nil
}

func (b Background) logTail() string {
	f, err := os.Open(b.LogFile)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > maxLogTail {
		_, _ = f.Seek(-maxLogTail, io.SeekEnd)
	}
	data, _ := io.ReadAll(io.LimitReader(f, maxLogTail))
	return strings.TrimSpace(string(data))
}
