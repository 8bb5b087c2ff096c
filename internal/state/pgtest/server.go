package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const startWait = 60 * time.Second // a busy machine takes its time

// Server is one PostgreSQL server, started when it is first needed. Make it in TestMain, or a variable of one test, and
// Close it at the end.
type Server struct {
	Durable bool    // commits are synced to the disk, as in production; else they are as fast as memory
	Secure  *Secure // nil: on a unix socket alone

	mu        sync.Mutex
	dir       string      // guarded by mu; "" until started
	process   *exec.Cmd   // guarded by mu; nil while down
	databases int         // guarded by mu
	admin     *pgx.Conn   // guarded by mu
	as        *credential // guarded by mu; nil: as ourselves
	bin       string      // guarded by mu
}

// Secure has the server listen on loopback too, where it wants TLS and a password.
type Secure struct {
	Cert, Key string // PEM files
	Port      int    // a free one
}

type credential struct{ uid, gid uint32 }

// URL makes a database for the test and returns its URL. Without an installed server the test is skipped.
func (s *Server) URL(t testing.TB) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if bin := find(); bin == "" {
		t.Skip("no PostgreSQL server is installed: the shared state is not proven (apt-get install postgresql)")
	}
	if err := s.startLocked(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.databases++
	name := "test" + strconv.Itoa(s.databases)
	if _, err := s.admin.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return s.socketURL(name)
}

// socketURL leads to a database by the unix socket, where nobody asks for a password.
func (s *Server) socketURL(database string) string {
	return "postgres:///" + database + "?" + url.Values{"host": {s.dir}, "port": {strconv.Itoa(s.port())}, "user": {"iap"}}.Encode()
}

// port is part of the socket's name: each server has a folder of its own.
func (s *Server) port() int {
	if s.Secure != nil {
		return s.Secure.Port
	}
	return 5432
}

// find returns the folder of the newest installed server.
func find() string {
	if path, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(real)
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // Debian's place
	slices.SortFunc(found, func(a, b string) int { return major(a) - major(b) })
	if len(found) == 0 {
		return ""
	}
	return filepath.Dir(found[len(found)-1])
}

func major(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

// startLocked makes the cluster and starts its server. mu is held.
func (s *Server) startLocked(ctx context.Context) error {
	if s.process != nil {
		return nil
	}
	if s.dir == "" {
		if err := s.initLocked(ctx); err != nil {
			return err
		}
	}
	return s.bootLocked(ctx)
}

func (s *Server) initLocked(ctx context.Context) (err error) {
	s.bin = find()
	if s.dir, err = os.MkdirTemp("", "iap-pg"); err != nil {
		return err
	}
	if os.Geteuid() == 0 { // the server refuses to run as root
		if s.as, err = somebody(); err != nil {
			return err
		}
		if err := os.Chown(s.dir, int(s.as.uid), int(s.as.gid)); err != nil {
			return err
		}
	}
	init := s.command(ctx, "initdb", "-D", s.data(), "-U", "iap", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	if out, err := init.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return s.secure()
}

// secure gives the server its certificate, and the rule of who needs a password.
func (s *Server) secure() error {
	if s.Secure == nil {
		return nil
	}
	files := map[string][]byte{"pg_hba.conf": []byte("local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n")}
	for name, from := range map[string]string{"server.crt": s.Secure.Cert, "server.key": s.Secure.Key} {
		pem, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		files[name] = pem
	}
	for name, content := range files {
		path := filepath.Join(s.data(), name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
		if s.as != nil {
			if err := os.Chown(path, int(s.as.uid), int(s.as.gid)); err != nil {
				return err
			}
		}
	}
	return nil
}

// somebody is whom the server runs as if the tests run as root.
func somebody() (*credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
			gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
			return &credential{uint32(uid), uint32(gid)}, errors.Join(err1, err2)
		}
	}
	return nil, errors.New("neither postgres nor nobody is a user of this system: PostgreSQL does not run as root")
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	c.Dir = s.dir
	c.Env = append(os.Environ(), "LC_ALL=C")
	asUser(c, s.as)
	return c
}

// bootLocked starts the server over the cluster and waits until it answers. mu is held.
func (s *Server) bootLocked(ctx context.Context) error {
	fsync := "off"
	if s.Durable {
		fsync = "on"
	}
	// Not the caller's context: the server outlives the first test.
	args := []string{"-D", s.data(), "-k", s.dir, "-p", strconv.Itoa(s.port()), "-c", "fsync=" + fsync, "-c", "max_connections=60", "-c", "shared_buffers=32MB"}
	if s.Secure != nil {
		args = append(args, "-c", "listen_addresses=127.0.0.1", "-c", "ssl=on")
	} else {
		args = append(args, "-c", "listen_addresses=")
	}
	p := s.command(context.WithoutCancel(ctx), "postgres", args...)
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p.Stderr = log
	if err := p.Start(); err != nil {
		return err
	}
	s.process = p
	deadline := time.Now().Add(startWait)
	for {
		conn, err := pgx.Connect(ctx, s.socketURL("postgres"))
		if err == nil {
			s.admin = conn
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("PostgreSQL does not answer: %w", errors.Join(err, s.killLocked(syscall.SIGQUIT)))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Kill ends the server as a power cut would, connections and all.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.killLocked(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) killLocked(signal os.Signal) error {
	if s.process == nil {
		return nil
	}
	if s.admin != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.admin.Close(ctx)
		s.admin = nil
	}
	err := s.process.Process.Signal(signal)
	_ = s.process.Wait() // it ends with a status that says it was killed
	s.process = nil
	return err
}

// Restart starts the server again, with all that was committed.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.bootLocked(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// Exec runs a statement in the database that url names.
func (s *Server) Exec(t testing.TB, url, sql string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// Count asks a question whose answer is one number.
func (s *Server) Count(t testing.TB, url, sql string) (n int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Close ends the server and removes its files. It may be called on one that never started.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.killLocked(syscall.SIGINT)
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}
