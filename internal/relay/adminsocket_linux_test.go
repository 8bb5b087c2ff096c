package relay

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

func TestAdminSocketIsForRootAndTheRelaysUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	s := newSystem(t, twoTeams)
	socket := s.relay.AdminSocket()
	info, err := os.Stat(socket)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if parent, err := os.Stat(filepath.Dir(socket)); err != nil || parent.Mode().Perm() != 0o700 {
		t.Errorf("folder %v, %v", parent.Mode(), err)
	}
	// Even where the file lets everybody in, the relay does not.
	for path := socket; path != "/" && path != os.TempDir(); path = filepath.Dir(path) {
		must(t, os.Chmod(path, 0o777))
	}
	if got := askAs(t, 65534, socket); got != 0 {
		t.Errorf("another user got %d bytes", got)
	}
	if got := askAs(t, 0, socket); got == 0 {
		t.Error("root got nothing")
	}
}

// askAs asks the socket for the relay's status as another user, and returns how many bytes came back. The user is the
// thread's alone.
func askAs(t *testing.T, uid int, socket string) int {
	t.Helper()
	got := make(chan int, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		const keep = ^uintptr(0)
		if _, _, no := syscall.RawSyscall(syscall.SYS_SETRESUID, keep, uintptr(uid), keep); no != 0 {
			t.Errorf("become user %d: %v", uid, no)
			got <- -1
			return
		}
		got <- askSocket(t, socket)
	}()
	return <-got
}

func askSocket(t *testing.T, socket string) int {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Error(err)
		return -1
	}
	defer syscall.Close(fd)
	if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket}); err != nil {
		t.Errorf("the file itself keeps the user out, which proves nothing of the relay: %v", err)
		return -1
	}
	_, _ = syscall.Write(fd, []byte("GET /v1/admin/status HTTP/1.0\r\n\r\n")) // refused connections may be gone already
	var b [64]byte
	n, err := syscall.Read(fd, b[:])
	if err != nil {
		return 0
	}
	return n
}
