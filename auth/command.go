package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// fromCommand runs the command and takes its standard output as the token. What it
// says on standard error is part of the error.
func (s *Source) fromCommand(ctx context.Context) (string, error) {
	out, err := runCommand(ctx, s.TokenCommand)
	if err != nil {
		return "", &LoginError{Code: CodeTokenUnavailable, Public: "the token command failed", Hint: "check IAP_TOKEN_COMMAND", Err: err}
	}
	return oneToken("token command", out)
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
	stdout, stderr := &firstBytes{limit: maxTokenBytes + 2}, &firstBytes{limit: maxDisplay}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("run %s: %w", words[0], ctx.Err())
	case err != nil:
		return nil, fmt.Errorf("run %s: %w: %s", words[0], err, displayText(stderr.kept.String(), maxDisplay))
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
