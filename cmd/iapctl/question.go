package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"
)

// asksPeople reports whether somebody is there to answer a question and to log in.
func (a *app) asksPeople() bool {
	return a.output == "text" && !a.external() && terminal(a.in) && terminal(a.err)
}

// confirm asks a question that is answered by one line. Only what begins with y or n counts; an empty line is the default, the end of
// input a no.
func (a *app) confirm(ctx context.Context, question string, byDefault bool) bool {
	choice := "[y/N]"
	if byDefault {
		choice = "[Y/n]"
	}
	fmt.Fprintf(a.err, "%s %s ", question, a.ui.err.dim.Render(choice))
	answered := make(chan string, 1)
	go func() { // a read of a terminal cannot be cancelled: after Ctrl-C this ends with the process
		line, err := bufio.NewReader(a.in).ReadString('\n')
		if err != nil && line == "" {
			line = "n"
		}
		answered <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.err)
		return false
	case line := <-answered:
		return line == "" && byDefault || strings.HasPrefix(line, "y")
	}
}
