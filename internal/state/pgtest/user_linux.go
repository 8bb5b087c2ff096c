package pgtest

import (
	"os/exec"
	"syscall"
)

// asUser has the command run as somebody, and end with the tests however those end.
func asUser(c *exec.Cmd, as *credential) {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if as != nil {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: as.uid, Gid: as.gid}
	}
}
