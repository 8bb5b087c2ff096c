package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/profile"
	"iap/tunnel"
)

const maxPrompt = 1 << 20 // of text on stdin; a relay takes bodies up to 32 MiB, a person means less

type chatOptions struct {
	resource string
	prompt   string
	model    string
}

func (a *app) chatCommand() *cobra.Command {
	var o chatOptions
	cmd := &cobra.Command{
		Use:   "chat RESOURCE [PROMPT]",
		Short: "Talk to a model in the terminal",
		Long: `Send a prompt to a model and stream its answer, or talk to it line by line.
Nothing needs to be connected: the request goes straight to the relay.

The prompt is the argument, or standard input, or what you type. Ctrl-D ends the
talk; Ctrl-C ends it at once, and with it the model's work on an answer.`,
		Example: `  iapctl chat phi3 "Why is the sky blue?"
  git diff | iapctl chat phi3 "Summarise this change:"
  iapctl chat phi3 --model phi3:mini`,
		Args:              rangeArgs(1, -1),
		ValidArgsFunction: a.completeResources,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.resource, o.prompt = args[0], strings.Join(args[1:], " ")
			return a.chat(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVarP(&o.model, "model", "m", "", "`model` (default: the first the resource offers)")
	return cmd
}

func (a *app) chat(ctx context.Context, o chatOptions) error {
	p, err := a.relayProfile()
	if err != nil {
		return err
	}
	talk := o.prompt == "" && terminal(a.in)
	if !terminal(a.in) {
		if o.prompt, err = a.promptFromInput(o.prompt); err != nil {
			return err
		}
	}
	if !talk && strings.TrimSpace(o.prompt) == "" {
		return usage("there is no prompt: give one as argument or on standard input")
	}
	return a.withStepUp(ctx, func() error { return a.chatOver(ctx, p, o, talk) })
}

// chatOver is one try: a login that is due ends it, and another follows.
func (a *app) chatOver(ctx context.Context, p *profile.Profile, o chatOptions, talk bool) error {
	return a.withSession(ctx, p, func(ctx context.Context, session *tunnel.Session) error {
		client := apiClient(session)
		defer client.Close()
		list, err := fetchResources(ctx, p, client)
		if err != nil {
			return err
		}
		r, err := a.chatResource(list, o.resource)
		if err != nil {
			return err
		}
		c := newConversation(session, r)
		defer c.close()
		if c.model, err = c.chooseModel(ctx, o.model); err != nil {
			return err
		}
		if talk {
			return a.talk(ctx, c)
		}
		return a.ask(ctx, c, o.prompt)
	})
}

// promptFromInput joins the argument and what stands on standard input.
func (a *app) promptFromInput(prompt string) (string, error) {
	if f, ok := a.in.(*os.File); ok && prompt != "" {
		if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice != 0 {
			return prompt, nil // /dev/null and the like: nobody writes
		}
	}
	data, err := io.ReadAll(io.LimitReader(a.in, maxPrompt+1))
	if err != nil {
		return "", fmt.Errorf("read standard input: %w", err)
	}
	if len(data) > maxPrompt {
		return "", usage("the prompt is larger than %d bytes", maxPrompt)
	}
	return strings.TrimSpace(prompt + "\n\n" + string(data)), nil
}

func (a *app) chatResource(list []admin.Resource, name string) (admin.Resource, error) {
	r, err := a.findResource(list, name)
	switch {
	case err != nil:
		return r, err
	case r.Kind != "model":
		return r, usage("%s is a resource of kind %s; chat wants a model", clean(name), clean(r.Kind))
	case !r.Online:
		return r, &failure{code: "agent_offline", what: fmt.Sprintf("no agent serves %s right now", clean(name)), next: "iapctl resources"}
	}
	return r, nil
}

// ask sends one prompt and prints the answer.
func (a *app) ask(ctx context.Context, c *conversation, prompt string) error {
	stop := func() {}
	out := io.Writer(a.out)
	if a.output == "json" {
		out = io.Discard
	} else if a.ui.spin && terminal(a.out) {
		stop = a.spinner(clean(c.model))
	}
	answer, err := c.send(ctx, prompt, &firstWrite{w: &streamCleaner{w: out}, hook: stop})
	stop()
	if err != nil {
		if answer.text != "" && a.output == "text" {
			fmt.Fprintln(a.out)
		}
		return err
	}
	done, err := a.json(chatDocument{Schema: schemaName, Resource: c.resource, Model: c.model, Answer: answer.text, Finish: answer.finish})
	if !done && !strings.HasSuffix(answer.text, "\n") {
		fmt.Fprintln(a.out)
	}
	return err
}

// talk reads prompts until the end of input or Ctrl-C. An answer that failed does not end it.
func (a *app) talk(ctx context.Context, c *conversation) error {
	a.say("%s", a.ui.err.dim.Render("Talking to "+clean(c.model)+" on "+clean(c.resource)+". Ctrl-D ends it."))
	lines := make(chan string)
	var readErr error
	go func() { // a read of a terminal cannot be cancelled: at Ctrl-C this ends with the process, right after talk
		defer close(lines)
		s := bufio.NewScanner(a.in)
		s.Buffer(nil, maxPrompt)
		for s.Scan() {
			select {
			case lines <- s.Text():
			case <-ctx.Done():
				return
			}
		}
		readErr = s.Err()
	}()
	for {
		fmt.Fprint(a.err, a.ui.err.bold.Render("> "))
		select {
		case <-ctx.Done():
			fmt.Fprintln(a.err)
			return errCanceled
		case line, ok := <-lines:
			if !ok {
				fmt.Fprintln(a.err)
				return readErr
			}
			if strings.TrimSpace(line) == "" {
				continue
			}
			if err := a.ask(ctx, c, line); err != nil {
				if ctx.Err() != nil || errors.Is(err, tunnel.ErrSessionLost) || failureOf(err).stepUp != nil {
					return err
				}
				a.printFailure(failureOf(err))
			}
		}
	}
}
