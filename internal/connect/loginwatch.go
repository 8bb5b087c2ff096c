package connect

import (
	"context"
	"time"

	"iap/tunnel"
)

const (
	// loginPoll is how often it is looked whether somebody has logged in or out; one small file each time.
	loginPoll = 2 * time.Second
	// loginRetry is the longest pause before it tries again where it cannot look: tokens of CI systems come from a file or a
	// command. It begins with loginPoll and doubles, so that a file that is replaced late is taken soon and a job that was
	// forgotten asks rarely.
	loginRetry = time.Minute
)

// waitForLogin returns when the stored login is another than the refused one, or at the end of ctx. Where
// logins cannot be told apart it returns after a while, a longer one after each refusal in a row.
func (l *line) waitForLogin(ctx context.Context, refused string, times int) {
	every := loginPoll
	if l.cfg.LoginID == nil {
		every = min(loginPoll<<min(times, 10), loginRetry)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if l.cfg.LoginID == nil || l.cfg.LoginID() != refused {
				return
			}
		}
	}
}

// watchLogin notices logins and logouts of other processes. After a new login new streams use a new session, and the old one's end
// in peace; after a logout nothing goes on.
func (s *Sessions) watchLogin(ctx context.Context) {
	tick := time.NewTicker(loginPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		id := s.cfg.LoginID()
		for _, l := range s.lines {
			session, login := l.current()
			switch {
			case session == nil || login.ID == id || session.Draining():
			case id == "":
				_ = session.Close(tunnel.CodeCanceled, "logged out")
			default:
				_ = session.GoAway("new login")
			}
		}
	}
}
