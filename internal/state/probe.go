package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Probe says what a start would find at a PostgreSQL URL, and changes nothing. Of a file there is nothing to say.
func Probe(ctx context.Context, url string) (found string, warnings []string, err error) {
	if !strings.HasPrefix(url, "postgres") {
		return "a file: one relay", nil, nil
	}
	var said strings.Builder
	config, err := postgresConfig(url, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		return "", nil, err
	}
	if said.Len() > 0 {
		warnings = append(warnings, "the connection to the database is not proof against whoever is between: use sslmode=verify-full")
	}
	name := postgresName(config.ConnConfig)
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w: %s", name, ErrUnavailable, explainPostgres(err))
	}
	defer conn.Close(context.WithoutCancel(ctx)) // it answers or is cut
	found, err = probe(ctx, conn)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", name, err)
	}
	return name + ", " + found, warnings, nil
}

func probe(ctx context.Context, conn *pgx.Conn) (string, error) {
	var encoding, version string
	var there, may bool
	err := conn.QueryRow(ctx, `SELECT current_setting('server_encoding'), current_setting('server_version'), to_regclass('iap.store') IS NOT NULL,
		has_database_privilege(current_database(), 'CREATE')`).Scan(&encoding, &version, &there, &may)
	switch {
	case err != nil:
		return "", errors.New(explainPostgres(err))
	case encoding != "UTF8":
		return "", fmt.Errorf("it is encoded in %s, not in UTF8", encoding)
	case !there && !may:
		return "", errors.New("it is empty, and its user may not make the relay's tables; make it the database's owner")
	case !there:
		return "version " + version + ", empty: the relay makes its tables at its first start", nil
	}
	var schema int
	if err := conn.QueryRow(ctx, "SELECT schema FROM iap.store").Scan(&schema); err != nil {
		return "", errors.New(explainPostgres(err))
	}
	if schema != schemaVersion {
		return "", fmt.Errorf("it has layout %d and this program knows layout %d", schema, schemaVersion)
	}
	return fmt.Sprintf("version %s, layout %d", version, schema), nil
}
