//go:build !linux

package pgtest

import "os/exec"

// asUser leaves the command as it is: root runs no tests here.
func asUser(*exec.Cmd, *credential) {}
