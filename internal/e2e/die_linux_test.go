package e2e

import (
	"os/exec"
	"syscall"
)

// dieWithUs ends a program with this process, whose own end may come without cleanup.
func dieWithUs(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
