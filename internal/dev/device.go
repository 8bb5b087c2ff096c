package dev

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	grantDevice = "urn:ietf:params:oauth:grant-type:device_code"
	// RFC 8628, section 3.5: each slow_down adds five seconds for good.
	slowDownStep = 5 * time.Second
	// A poll this much early is still on time: the interval is measured between arrivals.
	pollTolerance = 100 * time.Millisecond
)

var errNoDevice = errors.New("no device waits for this code")

// device is one device authorization (RFC 8628), from the code on its screen to the tokens.
type device struct {
	state    op.DeviceAuthorizationState
	userCode string
	interval time.Duration
	lastPoll time.Time
	spent    bool // its tokens were handed out
	asked    wish
}

// StoreDeviceAuthorization begins one; op has made the codes.
func (s *store) StoreDeviceAuthorization(ctx context.Context, clientID, deviceCode, userCode string, _ time.Time, asked []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.userCodes.get(userCode, time.Now()); taken {
		return op.ErrDuplicateUserCode
	}
	expires := time.Now().Add(s.options.DeviceLifetime)
	granted := slices.DeleteFunc(slices.Clone(asked), func(scope string) bool { return !slices.Contains(scopes(), scope) })
	d := &device{userCode: userCode, interval: s.options.Interval}
	d.asked, _ = ctx.Value(wishKey{}).(wish)
	d.state = op.DeviceAuthorizationState{ClientID: clientID, Scopes: granted, Expires: expires}
	// Kept past its end, so that a late poll hears expired_token and not an unknown code.
	keep := expires.Add(s.options.DeviceLifetime)
	s.devices.put(deviceCode, d, keep)
	s.userCodes.put(userCode, deviceCode, expires)
	return nil
}

// GetDeviceAuthorizatonState hands an approved device to op, once: polls that cannot succeed never get this far (pollGate).
func (s *store) GetDeviceAuthorizatonState(_ context.Context, clientID, deviceCode string) (*op.DeviceAuthorizationState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.devices.get(deviceCode, time.Now())
	if !ok || d.state.ClientID != clientID || d.spent {
		return nil, errNoDevice
	}
	if d.state.Done {
		d.spent = true
	}
	state := d.state
	return &state, nil
}

// pollGate answers the polls that end in one of RFC 8628's errors, and lets the one that succeeds pass to op. op would answer them too, but
// it knows no polling interval, logs each pending poll as a warning, and takes a secret only from clients of its web kind.
func (p *Provider) pollGate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.PostFormValue("grant_type") != grantDevice {
			next.ServeHTTP(w, r)
			return
		}
		if !p.pollerKnown(r) {
			writeOAuthError(w, string(oidc.InvalidClient), "unknown client or wrong secret")
			return
		}
		if code := p.store.poll(r.PostForm.Get("device_code")); code != "" {
			writeOAuthError(w, code, "")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// pollerKnown checks the client of a poll and leaves the request as a public client would have made it.
func (p *Provider) pollerKnown(r *http.Request) bool {
	id, secret := r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	if name, password, ok := r.BasicAuth(); ok {
		var badName, badPassword error
		id, badName = url.QueryUnescape(name)
		secret, badPassword = url.QueryUnescape(password)
		if badName != nil || badPassword != nil {
			return false
		}
		r.Header.Del("Authorization")
		r.Form.Set("client_id", id)
	}
	c, ok := p.store.clients[id]
	return ok && c.accepts(secret)
}

// poll returns the error of this poll, "" if tokens may be had.
func (s *store) poll(deviceCode string) string {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.devices.get(deviceCode, now)
	if !ok || d.spent {
		return string(oidc.InvalidGrant)
	}
	early := !d.lastPoll.IsZero() && now.Sub(d.lastPoll) < d.interval-pollTolerance
	d.lastPoll = now
	switch {
	case d.state.Denied:
		return string(oidc.AccessDenied)
	case now.After(d.state.Expires):
		return string(oidc.ExpiredToken)
	case early:
		d.interval += slowDownStep
		return string(oidc.SlowDown)
	case !d.state.Done:
		return string(oidc.AuthorizationPending)
	}
	return ""
}

// waitingDevice finds the device behind a user code, as typed: case and dashes do not matter.
func (s *store) waitingDevice(typed string) (device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.deviceLocked(typed)
	if err != nil {
		return device{}, err
	}
	return *d, nil
}

func (s *store) deviceLocked(typed string) (*device, error) {
	now := time.Now()
	deviceCode, ok := s.userCodes.get(normalUserCode(typed), now)
	if !ok {
		return nil, errNoDevice
	}
	d, ok := s.devices.get(deviceCode, now)
	if !ok || d.state.Done || d.state.Denied || now.After(d.state.Expires) {
		return nil, errNoDevice
	}
	return d, nil
}

// decideDevice is the person's answer.
func (s *store) decideDevice(typed, subject, password string, approve bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.deviceLocked(typed)
	if err != nil {
		return err
	}
	if !approve {
		d.state.Denied = true
		return nil
	}
	u, err := s.authenticateLocked(subject, password)
	if err != nil {
		return err
	}
	d.state.AMR, _, d.state.AuthTime = s.signInLocked(u, d.asked)
	d.state.Subject, d.state.Done = u.Subject, true
	return nil
}

// normalUserCode writes a code as op made it: upper case, a dash in the middle.
func normalUserCode(typed string) string {
	var letters strings.Builder
	for _, r := range strings.ToUpper(typed) {
		if r >= 'A' && r <= 'Z' && letters.Len() < 2*op.UserCodeBase20.CharAmount {
			letters.WriteRune(r)
		}
	}
	code := letters.String()
	if half := op.UserCodeBase20.DashInterval; len(code) > half {
		code = code[:half] + "-" + code[half:]
	}
	return code
}
