package main

import (
	"fmt"
	"sync"
	"time"
)

const spinnerTurn = 120 * time.Millisecond

// spinner shows that something is awaited, on a terminal only. The function it returns
// ends it, cleans its line and waits for that; it may be called more than once.
func (a *app) spinner(what string) func() {
	if !a.ui.spin {
		if a.output == "text" {
			a.say("%s …", what)
		}
		return func() {}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(spinnerTurn)
		defer tick.Stop()
		frames := []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
		for i := 0; ; i++ {
			fmt.Fprintf(a.err, "\r%c %s …", frames[i%len(frames)], what)
			select {
			case <-done:
				fmt.Fprint(a.err, "\r\x1b[K")
				return
			case <-tick.C:
			}
		}
	})
	return sync.OnceFunc(func() {
		close(done)
		wg.Wait()
	})
}
