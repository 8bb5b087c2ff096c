package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"iap/internal/admin"
	"iap/internal/connect"
	"iap/internal/notify"
	"iap/internal/profile"
	"iap/tunnel"
)

const rememberTimeout = 5 * time.Second // a small file under a lock

// watch tells the person about sessions that go and come, once each, and remembers how the relay proved itself.
type watch struct {
	app     *app
	ctx     context.Context // of the command
	profile *profile.Profile

	mu    sync.Mutex
	begun bool                  // guarded by mu; before, failures are the command's own
	away  map[tunnel.Class]bool // guarded by mu
	login bool                  // guarded by mu; the person was told that a login is needed
	told  bool                  // guarded by mu; that another user was turned away

	claims  []*connect.Claim // whose runs other processes see
	desktop *notify.Desktop  // nil: nothing is shown there
	showing sync.WaitGroup   // what is shown there just now

	steps chan admin.StepUpNotice // to whoever asks the person for a login; nil: nobody does, it is only told
}

func (a *app) newWatch(ctx context.Context, p *profile.Profile) *watch {
	return &watch{app: a, ctx: ctx, profile: p, away: map[tunnel.Class]bool{}}
}

func (w *watch) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begun = true
}

func (w *watch) up(s *tunnel.Session) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), rememberTimeout)
	defer cancel()
	if err := w.profile.Remember(ctx, s.PublicKey(), nil, string(s.Binding())); err != nil {
		w.app.logger().Warn("remember relay", "err", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	was := len(w.away)
	delete(w.away, s.Class())
	if !w.begun || was == 0 || len(w.away) > 0 {
		return
	}
	back := event{Event: eventRelayBack, Message: "The relay is back."}
	if w.login {
		back = event{Event: eventLoggedIn, Message: "Logged in again: connections go on."}
		w.needLogin(false)
	}
	w.app.tell(back)
}

// down is called for each failed try: only the first of an outage is told, and that a login is needed.
func (w *watch) down(class tunnel.Class, err error, _ time.Duration) {
	if replaced(err) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.begun || w.ctx.Err() != nil {
		return
	}
	first := len(w.away) == 0
	w.away[class] = true
	f := failureOf(err)
	switch {
	case connect.NeedsLogin(err) && !w.login:
		w.needLogin(true)
		e := event{
			Event: eventLoginNeeded, Code: f.code, Next: w.app.inProfile("iapctl login"),
			Message: capital(f.what) + ". A new login is needed; connections go on by themselves after it.",
		}
		if w.app.external() {
			e.Next, e.Message = f.next, capital(f.what)+". Connections go on by themselves once there is a good token."
		}
		w.app.tell(e)
		w.notify("A login is needed", "Connections to the relay wait for it. Next: "+e.Next)
	case first && !w.login:
		w.app.tell(event{
			Event: eventRelayLost, Code: f.code,
			Message: fmt.Sprintf("%s. Trying again; requests wait up to %d seconds.", capital(f.what), int(connect.WaitForSession.Seconds())),
		})
	}
}

// desktop is where a person is told of logins that are needed, or nil if they do not want that.
func (a *app) desktop(o connectOptions) *notify.Desktop {
	if o.noNotify || a.env("IAP_NO_NOTIFY") != "" {
		return nil
	}
	return &notify.Desktop{Env: a.env}
}

// needLogin says to other processes of the profile, such as status, whether this one waits for a login. mu is held.
func (w *watch) needLogin(needed bool) {
	w.login = needed
	for _, c := range w.claims {
		if err := c.NeedLogin(needed); err != nil {
			w.app.logger().Warn("tell other processes", "err", err)
		}
	}
}

// notify shows a text at the desktop, if there is one. Nobody waits for it but end. Nothing in it comes from the relay.
func (w *watch) notify(title, body string) {
	if w.desktop == nil {
		return
	}
	ctx := w.ctx
	w.showing.Go(func() {
		if err := w.desktop.Show(ctx, "iapctl: "+title, body); err != nil {
			w.app.logger().Debug("notify", "err", err)
		}
	})
}

// end waits for what is shown just now. No session may come or go any more.
func (w *watch) end() { w.showing.Wait() }

// replaced reports whether a session ended in order: because of a login or logout here, or because the relay drains it while the
// next one comes up. Should that fail, it is told then.
func replaced(err error) bool {
	var lost *tunnel.SessionError
	return errors.As(err, &lost) && (lost.Code == tunnel.CodeCanceled || lost.Code == tunnel.CodeRelayShutdown)
}

func (w *watch) notice(n tunnel.Notice) {
	if step, ok := stepUpNotice(n.Text); ok && n.Kind == admin.NoticeStepUp {
		w.stepUp(step)
		return
	}
	for _, line := range wrap("The relay says: "+clean(n.Text), screenWidth-2) {
		w.app.say("  %s", line)
	}
}

// stepUp tells that a request was denied which a fresh login would allow, or lets the person be asked for it.
func (w *watch) stepUp(n admin.StepUpNotice) {
	if w.steps != nil {
		select {
		case w.steps <- n:
		default: // the person is being asked already
		}
		return
	}
	w.app.remark(denial(n))
	w.app.say("  Next: %s", w.app.inProfile(stepUpLogin(&n.StepUp).command()))
}

func denial(n admin.StepUpNotice) string {
	return fmt.Sprintf("A request to %s was denied: %s.", clean(n.Resource), strings.TrimSuffix(clean(n.Message), "."))
}

// askPause lies between two questions about the same login: a program tries again whatever its user has answered, and not every login
// gives what the grant wants.
const askPause = time.Minute

// question is what the person was asked last, and when the answer came.
type question struct {
	about admin.StepUpNotice
	at    time.Time
}

// again reports whether n asks what was answered just now.
func (q question) again(n admin.StepUpNotice, now time.Time) bool {
	return q.about.Resource == n.Resource && q.about.StepUp == n.StepUp && now.Sub(q.at) < askPause
}

// askForLogins offers the logins that requests lack, one after the other. After one, the sessions change to it by themselves.
func (w *watch) askForLogins(ctx context.Context) {
	var last question
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-w.steps:
			if last.again(n, time.Now()) {
				continue
			}
			w.app.remark(denial(n))
			if w.app.confirm(ctx, "Log in again now?", true) {
				if err := w.app.login(ctx, stepUpLogin(&n.StepUp), ""); err != nil {
					w.app.printFailure(failureOf(err))
				}
			}
			last = question{n, time.Now()}
		}
	}
}

func (w *watch) otherUser() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.told {
		return
	}
	w.told = true
	w.app.say("%s A connection of another user of this machine was closed.\n  To serve other users too: --allow-other-users", w.app.ui.err.bad.Render("!"))
}

func capital(s string) string {
	if s != "" && s[0] >= 'a' && s[0] <= 'z' {
		return string(s[0]-'a'+'A') + s[1:]
	}
	return s
}
