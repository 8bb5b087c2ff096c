package notify

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"
)

const (
	// Limit bounds one Show: a desktop that does not answer by then is taken for none.
	Limit = 3 * time.Second
	// maxText is what desktops show of a title or a body, in characters.
	maxText = 200
)

// ErrNoDesktop says that there is nothing here that could show anything.
var ErrNoDesktop = errors.New("no desktop to show it on")

// Desktop is where a process's user sits. Env looks a variable of the process up.
type Desktop struct{ Env func(name string) string }

// Show shows title and body once. It returns within Limit.
func (d Desktop) Show(ctx context.Context, title, body string) error {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	return d.show(ctx, plain(title), plain(body))
}

// plain leaves out what a desktop could take for anything but text: control characters, and the signs of the markup that some read.
func plain(text string) string {
	count := 0
	return strings.Map(func(r rune) rune {
		if count++; count > maxText || !unicode.IsPrint(r) || strings.ContainsRune("<>&", r) {
			return -1
		}
		return r
	}, text)
}
