package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// fromCommand runs the command and takes its standard output as the token. What it
// says on standard error is shown, but for what looks like a token.
func (s *Source) fromCommand(ctx context.Context) (string, error) {
	out, err := runCommand(ctx, s.TokenCommand)
	if err != nil {
		public := "the token command failed"
		var failed *commandError
		if errors.As(err, &failed) && failed.said != "" {
			public += ": " + failed.said
		}
		return "", &LoginError{Code: CodeTokenUnavailable, Public: public, Hint: "check IAP_TOKEN_COMMAND", Err: err}
	}
	return oneToken("token command", out)
}

// commandError is a command that ended badly, and what it said last.
type commandError struct {
	name string
	said string
	err  error
}

func (e *commandError) Error() string {
	if e.said == "" {
		return fmt.Sprintf("run %s: %v", e.name, e.err)
	}
	return fmt.Sprintf("run %s: %v: %s", e.name, e.err, e.said)
}

func (e *commandError) Unwrap() error { return e.err }

// secretLike is what a command may blurt out when it fails: three parts of base64url, or a long word without a break.
var secretLike = regexp.MustCompile(`[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*|[A-Za-z0-9+/=_-]{40,}`)

// lastWords are the end of what a command said, fit to print.
func lastWords(text string) string {
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	for _, line := range slices.Backward(lines) {
		if line = strings.TrimSpace(line); line != "" {
			return displayText(secretLike.ReplaceAllString(line, "[hidden]"), maxDisplay)
		}
	}
	return ""
}

func runCommand(ctx context.Context, line string) ([]byte, error) {
	words, err := splitCommand(line)
	if err != nil {
		return nil, fmt.Errorf("read token command: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.WaitDelay = commandLinger
	stdout, stderr := &firstBytes{limit: maxTokenBytes + 2}, &lastBytes{limit: maxTokenBytes}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err = cmd.Run()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, &commandError{words[0], "it did not end in time", ctx.Err()}
	case ctx.Err() != nil:
		return nil, &commandError{words[0], "", ctx.Err()}
	case err != nil:
		return nil, &commandError{words[0], lastWords(string(stderr.kept)), err}
	case stdout.dropped:
		return nil, fmt.Errorf("run %s: its output is longer than a token", words[0])
	}
	return stdout.kept.Bytes(), nil
}

// firstBytes keeps the first bytes and swallows the rest, so that a command that
// says too much is not stopped by a full pipe. The buffer is not embedded: io.Copy
// would find its ReadFrom and go around Write.
type firstBytes struct {
	kept    bytes.Buffer
	limit   int
	dropped bool
}

func (b *firstBytes) Write(p []byte) (int, error) {
	room := b.limit - b.kept.Len()
	b.dropped = b.dropped || len(p) > room
	b.kept.Write(p[:min(len(p), room)]) // never fails
	return len(p), nil
}

// lastBytes keeps the end of what is written.
type lastBytes struct {
	kept  []byte
	limit int
}

func (b *lastBytes) Write(p []byte) (int, error) {
	b.kept = append(b.kept, p...)
	if over := len(b.kept) - b.limit; over > 0 {
		b.kept = append([]byte(nil), b.kept[over:]...)
	}
	return len(p), nil
}

// splitCommand cuts a command line into words without any shell: blanks separate
// words, '…' and "…" hold words together, and a backslash takes the next character
// as it is, except inside '…'. On Windows paths therefore belong into '…'. There
// are no variables, no pipes and no substitutions.
func splitCommand(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord := false
	var quote rune
	escaped := false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, errors.New("a quote or backslash is left open")
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 || words[0] == "" {
		return nil, errors.New("empty")
	}
	return words, nil
}
