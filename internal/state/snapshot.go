package state

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Snapshot writes the state in the file at path, which a relay may be using, to a new file: as it was at one moment.
func Snapshot(ctx context.Context, path, to string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("copy state: %w", err)
	}
	if err := check(ctx, path, info); err != nil {
		return err
	}
	file, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) // SQLite would make it for everybody to read
	if err != nil {
		return fmt.Errorf("copy state: %w", err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("copy state: %w", err)
	}
	db, err := connect(fileDSN(path, "rw"), 1)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", to)
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("copy state in %s: %w: %s", path, ErrUnavailable, explain(err))
	}
	return nil
}
