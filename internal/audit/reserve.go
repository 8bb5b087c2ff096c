package audit

import (
	"errors"
	"fmt"
	"os"
)

const (
	reserveStep   = 64 << 10 // given back at a time: others who wait for space get little of it
	reserveMargin = 64 << 10 // space that must be left beside a full reserve, so that decisions can be written again
	reserveShare  = 8        // the reserve takes at most this part of the disk, or a small one would never be usable
)

// reserve is a file that holds disk space for the records that must not be lost. The log's mutex guards it. It holds
// only what the file system really sets aside: one that compresses or copies on write gives less.
type reserve struct {
	path string
	want int64
	size int64 // bytes held
	file *os.File
}

// open takes over what the last run left.
func (r *reserve) open() error {
	if r.want == 0 {
		return nil
	}
	file, err := os.OpenFile(r.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open audit reserve: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open audit reserve: %w", err), file.Close())
	}
	if size, ok := diskSize(file); ok {
		r.want = min(r.want, size/reserveShare)
	}
	r.file, r.size = file, min(info.Size(), r.want)
	if info.Size() > r.want {
		if err := file.Truncate(r.want); err != nil {
			return fmt.Errorf("cut audit reserve: %w", err)
		}
	}
	return nil
}

// fill makes the reserve whole again if there is space for it and for some records beside it.
func (r *reserve) fill() error {
	if r.size == r.want {
		return nil
	}
	if err := spaceFor(r.file, r.want-r.size+reserveMargin); err != nil {
		return err
	}
	if err := allocate(r.file, r.size, r.want-r.size); err != nil {
		return errors.Join(fmt.Errorf("fill audit reserve: %w", err), r.file.Truncate(r.size))
	}
	r.size = r.want
	return nil
}

// shrink gives some space back and says whether there was any.
func (r *reserve) shrink() bool {
	if r.size == 0 {
		return false
	}
	size := max(0, r.size-reserveStep)
	if err := r.file.Truncate(size); err != nil {
		return false
	}
	r.size = size
	return true
}

func (r *reserve) close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
