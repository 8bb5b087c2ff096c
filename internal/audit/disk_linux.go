package audit

import (
	"errors"
	"os"
	"syscall"
)

// noSpace says whether an error means that the disk, or the share of it we may use, is full.
func noSpace(err error) bool {
	return errors.Is(err, errReserve) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// syncData flushes a file's contents and what is needed to find them, but not its times.
func syncData(_ *os.File, fd uintptr) error {
	for {
		if err := syscall.Fdatasync(int(fd)); err != syscall.EINTR {
			return err
		}
	}
}

// syncDir makes a new file's name durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// spaceFor returns ENOSPC if the file's disk has less than n bytes left, without disturbing it.
func spaceFor(f *os.File, n int64) error {
	var disk syscall.Statfs_t
	if err := syscall.Fstatfs(int(f.Fd()), &disk); err != nil {
		return nil // allocating will tell
	}
	if int64(disk.Bavail)*disk.Bsize < n {
		return syscall.ENOSPC
	}
	return nil
}

// diskSize returns how many bytes the file's disk has.
func diskSize(f *os.File) (int64, bool) {
	var disk syscall.Statfs_t
	err := syscall.Fstatfs(int(f.Fd()), &disk)
	return int64(disk.Blocks) * disk.Bsize, err == nil
}

// allocate gives a file blocks of its own, by writing where the file system has no call for it.
func allocate(f *os.File, from, n int64) error {
	err := syscall.Fallocate(int(f.Fd()), 0, from, n)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		return fillFile(f, from, n)
	}
	return err
}
