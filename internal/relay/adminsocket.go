package relay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"iap/internal/admin"
)

// adminServer serves the admin API to root on the relay: the way in when the
// identity provider is down.
type adminServer struct {
	listener net.Listener
	http     *http.Server
	path     string
}

func newAdminServer(r *Relay) (*adminServer, error) {
	path := r.cfg.AdminSocket
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	return &adminServer{
		path: path, listener: &trustedListener{listener},
		http: &http.Server{
			Handler:           admin.AdminHandler(&adminAPI{relay: r, caller: localRoot}, &adminGate{relay: r}),
			ReadHeaderTimeout: headerTimeout, MaxHeaderBytes: maxHeaderBytes, IdleTimeout: idleTimeout, ErrorLog: silentLog(),
		},
	}, nil
}

// removeStale removes a socket that no process listens on.
func removeStale(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("admin socket: %s exists and is no socket", path)
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return fmt.Errorf("admin socket: another relay is listening on %s", path)
	}
	return os.Remove(path)
}

func (a *adminServer) serve() error { return a.http.Serve(a.listener) }

func (a *adminServer) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := a.http.Shutdown(ctx); err != nil {
		return a.http.Close()
	}
	return ignoreClosed(a.listener.Close)()
}

// trustedListener closes connections of users that are neither root nor the
// relay's own.
type trustedListener struct{ net.Listener }

func (l *trustedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if uid, err := peerUID(conn); err == nil && (uid == 0 || uid == os.Getuid()) {
			return conn, nil
		}
		conn.Close()
	}
}
