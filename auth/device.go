package auth

import (
	"context"
	"errors"
	"time"

	"golang.org/x/oauth2"
)

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// Device logs a person in with a device code (RFC 8628): show is called once with
// what the person must see, then the provider is asked at its pace until the person
// is done, refuses, or the code expires. Errors are of type *LoginError.
func (l *Login) Device(ctx context.Context, show func(DevicePrompt)) (*Tokens, error) {
	r, err := l.prepare(ctx)
	if err != nil {
		return nil, err
	}
	if r.meta.DeviceURL == "" {
		return nil, methodBlocked(errors.New("its discovery document names no device_authorization_endpoint"))
	}
	auth, err := r.authorizeDevice(ctx)
	if err != nil {
		return nil, err
	}
	show(devicePrompt(auth))
	tok, err := r.poll(ctx, auth)
	if err != nil {
		return nil, err
	}
	return r.tokens(tok, "")
}

// authorizeDevice asks for a device code and a user code.
func (r *relying) authorizeDevice(ctx context.Context) (*oauth2.DeviceAuthResponse, error) {
	options := r.params()
	if r.ClientSecret != "" {
		options = append(options, oauth2.SetAuthURLParam("client_secret", r.ClientSecret))
	}
	request, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	request = context.WithValue(request, oauth2.HTTPClient, withContext(request, r.client))
	auth, err := r.config.DeviceAuth(request, options...)
	if err != nil {
		a := answerOf(err)
		if a != nil && !a.temporary() && (a.blockedMethod() || a.code == "access_denied" || a.code == "invalid_grant") {
			return nil, methodBlocked(a) // nobody has been asked yet: it is the method that is refused
		}
		return nil, grantFailed(ctx, err)
	}
	if auth.DeviceCode == "" || auth.UserCode == "" || auth.VerificationURI == "" {
		return nil, &LoginError{Code: CodeProviderMisbehaves, Public: "the identity provider sent no complete device code", Hint: "try again, or: iapctl login --browser"}
	}
	auth.Expiry = deviceExpiry(auth.Expiry, time.Now())
	return auth, nil
}

// deviceExpiry bounds the life of a device code. Without the monotonic part: a laptop
// that slept has used up the time too.
func deviceExpiry(expires, now time.Time) time.Time {
	switch {
	case expires.IsZero():
		expires = now.Add(deviceLifetime)
	case expires.After(now.Add(deviceLifetimeMax)):
		expires = now.Add(deviceLifetimeMax)
	}
	return expires.Round(0)
}

// devicePrompt makes a provider's answer fit to show and to open.
func devicePrompt(auth *oauth2.DeviceAuthResponse) DevicePrompt {
	p := DevicePrompt{
		VerificationURI: displayText(auth.VerificationURI, maxAddress),
		UserCode:        displayText(auth.UserCode, maxUserCode),
		Expires:         auth.Expiry,
	}
	if open, err := openable(auth.VerificationURI); err == nil {
		p.Open = open
	}
	if open, err := openable(auth.VerificationURIComplete); err == nil {
		p.Open = open
		p.VerificationURIComplete = displayText(auth.VerificationURIComplete, maxAddress)
	}
	return p
}

// poll asks for the tokens as RFC 8628 section 3.5 says: at the provider's interval,
// 5 s slower for good after each slow_down, and with a doubling wait while
// connections fail, which x/oauth2's own loop would take for the end. It never asks
// after the code has expired.
func (r *relying) poll(ctx context.Context, auth *oauth2.DeviceAuthResponse) (*oauth2.Token, error) {
	interval := devicePollDefault
	if auth.Interval > 0 && auth.Interval < int64(deviceLifetimeMax/time.Second) {
		interval = time.Duration(auth.Interval) * time.Second
	}
	wait := interval
	for {
		if !time.Now().Round(0).Add(wait).Before(auth.Expiry) {
			return nil, loginExpired(nil)
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
		if !time.Now().Round(0).Before(auth.Expiry) { // the machine slept
			return nil, loginExpired(nil)
		}
		tok, err := r.askForDevice(ctx, auth.DeviceCode)
		if err == nil {
			return tok, nil
		}
		if ended := contextEnded(ctx); ended != nil {
			return nil, ended
		}
		switch a := answerOf(err); {
		case a == nil && !errors.Is(err, errRedirect), a != nil && (a.temporary() || a.code == ""):
			wait = max(interval, min(2*wait, devicePollMax))
			r.logger().Debug("device login: no answer, asking more slowly", "wait", wait, "error", err)
		case a != nil && a.code == "authorization_pending":
			wait = interval
		case a != nil && a.code == "slow_down":
			interval += devicePollStep
			wait = interval
		case a != nil && a.blockedMethod():
			return nil, methodBlocked(a)
		default:
			return nil, grantFailed(ctx, err)
		}
	}
}

// askForDevice is one exchange of the device code. x/oauth2 has none by itself; its
// Exchange is one once the grant type is replaced, since the empty code it sends
// along counts as omitted (RFC 6749 section 3.2).
func (r *relying) askForDevice(ctx context.Context, deviceCode string) (*oauth2.Token, error) {
	return r.config.Exchange(r.oauthContext(ctx), "",
		oauth2.SetAuthURLParam("grant_type", deviceGrant),
		oauth2.SetAuthURLParam("device_code", deviceCode))
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return contextEnded(ctx)
	}
}
