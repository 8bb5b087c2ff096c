package state

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

//go:embed postgres.sql
var postgresSchema string

// schemaLock keeps two relays from making the layout at once: "iap" in ASCII.
const schemaLock = 0x696170

// postgresConfig reads the URL. The connection to another machine is encrypted, and the server's certificate checked,
// unless the URL says otherwise.
func postgresConfig(text string, log *slog.Logger) (*pgxpool.Config, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("open state: the database's URL cannot be read; want postgres://user@host/database")
	}
	q := u.Query()
	mode := q.Get("sslmode")
	if mode == "" {
		mode = os.Getenv("PGSSLMODE")
	}
	config, err := pgxpool.ParseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("open state: the database's URL is wrong: %s", withoutSecret(err, u))
	}
	switch {
	case mode == "" && !isLocal(config.ConnConfig):
		q.Set("sslmode", "verify-full")
	case mode == "" && q.Get("sslrootcert") == "":
		q.Set("sslmode", "disable") // the same machine
	case mode != "verify-full" && mode != "verify-ca" && !isLocal(config.ConnConfig):
		log.Warn("the connection to the database is not proof against whoever is between: use sslmode=verify-full", "sslmode", mode)
	}
	if q.Get("target_session_attrs") == "" {
		q.Set("target_session_attrs", "read-write") // of several hosts, the one that takes writes
	}
	u.RawQuery = q.Encode()
	if config, err = pgxpool.ParseConfig(u.String()); err != nil {
		return nil, fmt.Errorf("open state: the database's URL is wrong: %s", withoutSecret(err, u))
	}
	if q.Get("pool_max_conns") == "" {
		config.MaxConns = pgConnections
	}
	config.PingTimeout = pgConnectWait
	c := config.ConnConfig
	if c.ConnectTimeout == 0 || c.ConnectTimeout > pgConnectWait {
		c.ConnectTimeout = pgConnectWait
	}
	setDefault := func(name, value string) {
		if c.RuntimeParams[name] == "" {
			c.RuntimeParams[name] = value
		}
	}
	setDefault("application_name", "iap-relay")
	c.RuntimeParams["default_transaction_isolation"] = "read committed" // iap.write counts on it
	c.RuntimeParams["statement_timeout"] = strconv.FormatInt(writeTimeout.Milliseconds(), 10)
	return config, nil
}

// withoutSecret words an error of the driver, which may quote the URL.
func withoutSecret(err error, u *url.URL) string {
	text := err.Error()
	if password, ok := u.User.Password(); ok && password != "" {
		for _, secret := range []string{password, url.QueryEscape(password), url.PathEscape(password)} {
			text = strings.ReplaceAll(text, secret, "xxxxx")
		}
	}
	if password := u.Query().Get("password"); password != "" {
		text = strings.ReplaceAll(text, password, "xxxxx")
	}
	return text
}

// isLocal reports whether every server is on this machine.
func isLocal(c *pgx.ConnConfig) bool {
	hosts := []string{c.Host}
	for _, other := range c.Fallbacks {
		hosts = append(hosts, other.Host)
	}
	for _, host := range hosts {
		ip := net.ParseIP(host)
		if !strings.HasPrefix(host, "/") && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}

func postgresName(c *pgx.ConnConfig) string {
	return fmt.Sprintf("postgres database %s at %s", c.Database, net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))))
}

// prepare makes the layout if there is none, and returns the last version given.
func (s *postgresStore) prepare(ctx context.Context) (int64, error) {
	var version int64
	var schema int
	var encoding string
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, "SHOW server_encoding").Scan(&encoding); err != nil || encoding != "UTF8" {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", schemaLock); err != nil {
			return err
		}
		var there, named bool
		err := tx.QueryRow(ctx, "SELECT to_regclass('iap.store') IS NOT NULL, to_regnamespace('iap') IS NOT NULL").Scan(&there, &named)
		if err != nil {
			return err
		}
		if !named {
			if _, err := tx.Exec(ctx, "CREATE SCHEMA iap"); err != nil {
				return err
			}
		}
		if !there {
			if _, err := tx.Exec(ctx, postgresSchema); err != nil {
				return err
			}
		}
		if err := tx.QueryRow(ctx, "SELECT schema FROM iap.store").Scan(&schema); err != nil || schema != schemaVersion {
			return err
		}
		return tx.QueryRow(ctx, "SELECT version FROM iap.store").Scan(&version)
	})
	switch {
	case ctx.Err() != nil:
		return 0, fmt.Errorf("open state in %s: %w: %w", s.name, ErrUnavailable, ctx.Err())
	case err != nil:
		return 0, fmt.Errorf("open state in %s: %w: %s", s.name, ErrUnavailable, explainPostgres(err))
	case encoding != "UTF8":
		return 0, fmt.Errorf("open state: %s is encoded in %s, not in UTF8; create it with ENCODING 'UTF8' TEMPLATE template0", s.name, encoding)
	case schema != schemaVersion:
		return 0, fmt.Errorf("open state: %s has layout %d and this program knows layout %d; use the program that wrote it", s.name, schema, schemaVersion)
	}
	return version, nil
}

// Classes and codes of PostgreSQL's errors (its manual, appendix A).
const (
	codeBehind        = "IAP01" // raised by iap.write: the database has forgotten versions that it gave
	codeDiskFull      = "53100"
	codeTooMany       = "53300"
	codeReadOnly      = "25006"
	codeNotAllowed    = "42501"
	codeNoPassword    = "28P01"
	codeNoLogin       = "28000"
	codeNoDatabase    = "3D000"
	codeSerialization = "40001"
	codeDeadlock      = "40P01"
	codeTimeout       = "57014"
)

// transient reports that the same call may succeed at once, on another connection.
func transient(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
	}
	switch e.Code {
	case codeTooMany, codeReadOnly, codeSerialization, codeDeadlock:
		return true
	}
	return strings.HasPrefix(e.Code, "08") || strings.HasPrefix(e.Code, "57P") // connection lost; server going down or coming up
}

func isCode(err error, code string) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == code
}

// explainPostgres words the errors that an operator can mend. No error of the driver's holds a password.
func explainPostgres(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		switch e.Code {
		case codeBehind:
			return "the database is older than what this relay has seen of it (" + e.Message + "): commits were lost in a failover or by a restored backup. Check what was revoked, then start every relay anew"
		case codeDiskFull:
			return "the database's disk is full"
		case codeTooMany:
			return "the database has no connection free; raise max_connections (a relay needs 6)"
		case codeReadOnly:
			return "the server is a standby and takes no writes"
		case codeNotAllowed:
			return "the database's user may not do this (" + e.Message + "); make it the database's owner"
		case codeNoPassword, codeNoLogin:
			return "the server refuses the user (" + e.Message + "); see the password, or PGPASSFILE"
		case codeNoDatabase:
			return e.Message + "; create it"
		case codeTimeout:
			return "the database did not answer in time"
		}
		return e.Message + " (" + e.Code + ")"
	}
	if errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err) {
		return "the database did not answer in time"
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "no server is there (" + err.Error() + ")"
	}
	return err.Error()
}
