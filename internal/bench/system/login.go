package system

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
)

// login runs the real device flow and approves it on the provider's own page,
// which outside a measurement only a person does.
func (s *System) login(ctx context.Context, argv []string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Env, c.WaitDelay = s.environment(), endTimeout
	screen, err := c.StderrPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	var approveErr error
	said := ""
	lines := bufio.NewScanner(screen)
	for lines.Scan() {
		var prompt struct {
			UserCode string `json:"user_code"`
		}
		said = lines.Text()
		if json.Unmarshal(lines.Bytes(), &prompt) != nil || prompt.UserCode == "" {
			continue
		}
		approveErr = s.provider.Approve(ctx, prompt.UserCode, user)
	}
	if err := errors.Join(approveErr, lines.Err(), c.Wait()); err != nil {
		return errors.Join(err, errors.New(said))
	}
	return nil
}
