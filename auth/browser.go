package auth

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/pkg/browser"
)

// silence keeps the opener's chatter off the terminal. The library has two variables
// for it and no other way.
var silence = sync.OnceFunc(func() { browser.Stdout, browser.Stderr = io.Discard, io.Discard })

// OpenBrowser opens an address for the user. It refuses everything but https and
// loopback http, and addresses with control characters: what comes from a provider
// must not start anything else. It returns when the opener does, or after a moment,
// since some openers stay for as long as the browser.
func OpenBrowser(url string) error {
	address, err := openable(url)
	if err != nil {
		return fmt.Errorf("open browser: %w", err)
	}
	silence()
	opened := make(chan error, 1)
	go func() { opened <- browser.OpenURL(address) }()
	timer := time.NewTimer(openerTimeout)
	defer timer.Stop()
	select {
	case err := <-opened:
		if err != nil {
			return fmt.Errorf("open browser: %w", err)
		}
	case <-timer.C:
	}
	return nil
}

// openable returns an address in a form that means the same to every program it may
// pass through: openers have been shell scripts that let a "$(…)" run.
func openable(raw string) (string, error) {
	if len(raw) > maxAddress {
		return "", errors.New("address is too long")
	}
	u, err := parseEndpoint(raw)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, c := range []byte(u.String()) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"'`$();|<>\\^{}*!", c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}
