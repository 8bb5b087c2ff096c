package dev

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// A person who gets no page within this time gives up.
	patience     = 10 * time.Second
	maxPageBytes = 256 << 10
)

// Approve opens the device page for a user code and presses Approve as the given user, over HTTP, as a person would.
func (p *Provider) Approve(ctx context.Context, userCode, subject string) error {
	return p.answerDevice(ctx, userCode, subject, "approve")
}

// Deny opens the device page and presses Deny.
func (p *Provider) Deny(ctx context.Context, userCode string) error {
	return p.answerDevice(ctx, userCode, "", "deny")
}

func (p *Provider) answerDevice(ctx context.Context, userCode, subject, decision string) error {
	browser := p.browser()
	defer browser.CloseIdleConnections()
	target := p.issuer + devicePath
	if _, err := visit(ctx, browser, http.MethodGet, target+"?user_code="+url.QueryEscape(userCode), nil); err != nil {
		return fmt.Errorf("open device page for %q: %w", userCode, err)
	}
	form := url.Values{"user_code": {userCode}, "subject": {subject}, "decision": {decision}, "password": {p.passwordOf(subject)}}
	if _, err := visit(ctx, browser, http.MethodPost, target, form); err != nil {
		return fmt.Errorf("%s device %q as %q: %w", decision, userCode, subject, err)
	}
	return nil
}

// SignIn takes an authorization URL through the login page as the given user and on to the client's redirect URI, as a browser would.
// An empty subject cancels.
func (p *Provider) SignIn(ctx context.Context, authorizationURL, subject string) error {
	browser := p.browser()
	defer browser.CloseIdleConnections()
	login, err := visit(ctx, browser, http.MethodGet, authorizationURL, nil)
	if err != nil {
		return fmt.Errorf("open login page: %w", err)
	}
	if login.Path != loginPath {
		return nil // the provider refused the request and told the client
	}
	form := url.Values{"id": {login.Query().Get("id")}, "subject": {subject}, "decision": {"approve"}, "password": {p.passwordOf(subject)}}
	if subject == "" {
		form.Set("decision", "deny")
	}
	if _, err := visit(ctx, browser, http.MethodPost, p.issuer+loginPath, form); err != nil {
		return fmt.Errorf("sign in as %q: %w", subject, err)
	}
	return nil
}

// visit makes one request, follows redirects and returns where it ended; a status other than 200 is an error.
// What another server than the one first asked says, the client at its redirect URI, is its own affair.
func visit(ctx context.Context, browser *http.Client, method, target string, form url.Values) (*url.URL, error) {
	r, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	answer, err := browser.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(answer.Body, maxPageBytes)); err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK && answer.Request.URL.Host == r.URL.Host {
		return nil, fmt.Errorf("%s answered %s", answer.Request.URL.Path, answer.Status)
	}
	return answer.Request.URL, nil
}

// browser trusts this provider's own certificate and uses no proxy.
func (p *Provider) browser() *http.Client {
	transport := &http.Transport{DisableKeepAlives: true}
	if c := p.options.TLS; c != nil {
		roots := x509.NewCertPool()
		for _, pair := range c.Certificates {
			if leaf, err := x509.ParseCertificate(pair.Certificate[0]); err == nil {
				roots.AddCert(leaf)
			}
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: transport, Timeout: patience}
}

func (p *Provider) passwordOf(subject string) string {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	u, err := p.store.userLocked(subject)
	if err != nil {
		return ""
	}
	return u.Password
}
