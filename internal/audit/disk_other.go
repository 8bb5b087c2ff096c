//go:build !linux

package audit

import (
	"errors"
	"os"
	"syscall"
)

const (
	windowsHandleDiskFull = syscall.Errno(39)
	windowsDiskFull       = syscall.Errno(112)
)

// noSpace says whether an error means that the disk, or the share of it we may use, is full.
func noSpace(err error) bool {
	for _, full := range []error{errReserve, syscall.ENOSPC, syscall.EDQUOT, windowsHandleDiskFull, windowsDiskFull} {
		if errors.Is(err, full) {
			return true
		}
	}
	return false
}

func syncData(f *os.File, _ uintptr) error { return f.Sync() }

// syncDir does nothing where directories cannot be synced portably.
func syncDir(string) error { return nil }

// spaceFor leaves it to allocate to find out.
func spaceFor(*os.File, int64) error { return nil }

func diskSize(*os.File) (int64, bool) { return 0, false }

func allocate(f *os.File, from, n int64) error { return fillFile(f, from, n) }
