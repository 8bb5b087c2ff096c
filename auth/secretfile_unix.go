//go:build !windows

package auth

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

const othersMask = 0o077

func checkSecretFile(info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&othersMask != 0 {
		return fmt.Errorf("mode %04o lets others at it; chmod 600 it, and take what it held as known", mode)
	}
	return checkOwner(info)
}

func checkSecretDir(dir string, info fs.FileInfo) error {
	if mode := info.Mode(); mode.Perm()&0o002 != 0 && mode&fs.ModeSticky == 0 {
		return fmt.Errorf("directory %s: mode %04o lets everybody replace its files; chmod 700 it", dir, mode.Perm())
	}
	return checkOwner(info)
}

// checkOwner lets root's files pass too: whoever is root can read ours anyway.
func checkOwner(info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Uid == 0 || int(stat.Uid) == os.Geteuid() {
		return nil
	}
	return fmt.Errorf("belongs to user %d, not to you", stat.Uid)
}

// syncDir makes a rename survive a power loss.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
