package connect

import (
	"errors"
	"syscall"
)

const (
	wsaeacces     = syscall.Errno(10013) // held exclusively by another program
	wsaeaddrinuse = syscall.Errno(10048)
)

func isInUse(err error) bool {
	return errors.Is(err, wsaeaddrinuse) || errors.Is(err, wsaeacces)
}
