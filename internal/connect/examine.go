package connect

import (
	"context"
	"log/slog"
	"time"

	"iap/internal/doctor"
	"iap/tunnel"
)

// Way is what was found on the way to a session, as far as it came.
type Way struct {
	doctor.Way
	Token, Session time.Duration // 0: not reached
}

// Examine makes one session as Once does, and tells of each stage.
// The session is nil if err is not; close it.
func Examine(ctx context.Context, cfg Config, class tunnel.Class) (*tunnel.Session, Way, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	traced, end := doctor.Trace(ctx, cfg.Dialer.Target())
	conn, err := cfg.Dialer.Dial(traced)
	way := Way{Way: end()}
	if err != nil {
		return nil, way, err
	}
	begun := time.Now()
	login, err := cfg.Login(ctx)
	token := ""
	if err == nil {
		token, err = login.Token(ctx)
	}
	way.Token = time.Since(begun)
	if err != nil {
		conn.Close() // nothing was said on it yet
		return nil, way, err
	}
	begun = time.Now()
	session, err := (&line{cfg: cfg, class: class}).prove(ctx, conn, login, func(context.Context) (string, error) { return token, nil })
	if code := tunnel.CodeOf(err); code == tunnel.CodeTokenInvalid || code == tunnel.CodeSessionExpired {
		session, err = Once(ctx, cfg, class) // which renews the token if it is refused again
	}
	way.Session = time.Since(begun)
	return session, way, err
}
