package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"iap/internal/plaintext"
)

const (
	demoUser     = "alice"
	demoQuestion = "Tell me about the sea at night."
	demoTokens   = 60
	demoReady    = 20 * time.Second
	demoChildEnd = 5 * time.Second
)

// present shows what runs. With --demo it logs in, connects and streams an
// answer with the real iapctl before it waits for the end.
func (s *devSystem) present(running, stop context.Context) error {
	if !s.options.demo {
		s.printHowTo(os.Stdout)
		wait(running, stop)
		return nil
	}
	ctl, err := besideMe("iapctl")
	if err != nil {
		return err
	}
	d := &demo{system: s, ctl: ctl, home: filepath.Join(s.dir, "demo-user")}
	if err := d.run(stop); err != nil {
		return err
	}
	s.printHowTo(os.Stdout)
	wait(running, stop)
	return d.end()
}

func wait(a, b context.Context) {
	select {
	case <-a.Done():
	case <-b.Done():
	}
}

// besideMe finds a binary in the folder of this one.
func besideMe(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(self), name+filepath.Ext(self))
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("the demo needs %s beside iap-relay; run make build", name)
	}
	return path, nil
}

// demo is one user of the development system, played with the real iapctl.
type demo struct {
	system  *devSystem
	ctl     string
	home    string
	connect *exec.Cmd
	ended   chan struct{} // closed when connect has ended
}

func (d *demo) run(ctx context.Context) error {
	s := d.system
	step("Identity provider, relay, agent and model are up, on loopback:")
	fmt.Printf("    provider  %s\n    relay     https://%s\n    model     %s\n", s.provider.Issuer(), s.name, s.options.modelURL)
	step("Logging in with a device code: iapctl login " + s.name)
	if err := d.login(ctx); err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	step("Connecting: iapctl connect " + devResource)
	base, err := d.open(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	step("Asking the model through the tunnel: " + demoQuestion)
	return d.ask(ctx, base)
}

func step(text string) { fmt.Printf("\n==> %s\n", text) }

func (d *demo) command(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, d.ctl, args...)
	c.Env = append(os.Environ(), "IAP_CONFIG_DIR="+d.home, "NO_COLOR=1")
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = demoChildEnd
	return c
}

// userCode is how iapctl shows the code that a person types.
var userCode = regexp.MustCompile(`\b[A-Z0-9]{4}-[A-Z0-9]{4}\b`)

// login runs the real device flow. The approval, which is a person's to give,
// is given here, as a browser would: by the provider's own page.
func (d *demo) login(ctx context.Context) error {
	c := d.command(ctx, "login", d.system.name, "--ca-file", d.system.ca, "--no-open")
	screen, err := c.StderrPipe()
	if err != nil {
		return err
	}
	c.Stdout = os.Stdout
	if err := c.Start(); err != nil {
		return err
	}
	approved := false
	var approveErr error
	lines := bufio.NewScanner(screen)
	for lines.Scan() {
		fmt.Println("    " + lines.Text())
		code := userCode.FindString(lines.Text())
		if code == "" || approved {
			continue
		}
		approved = true
		fmt.Printf("    (The demo approves this by itself, as %s. Outside a demo only a person does.)\n", demoUser)
		approveErr = d.system.provider.Approve(ctx, code, demoUser)
	}
	if err := errors.Join(approveErr, lines.Err(), c.Wait()); err != nil {
		return err
	}
	if !approved {
		return errors.New("iapctl showed no code")
	}
	return nil
}

// open starts `iapctl connect` and returns the base URL it prints.
func (d *demo) open(ctx context.Context) (string, error) {
	d.connect = d.command(context.WithoutCancel(ctx), "connect", devResource, "-o", "json")
	d.connect.Stderr = os.Stderr
	out, err := d.connect.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := d.connect.Start(); err != nil {
		return "", err
	}
	d.ended = make(chan struct{})
	found := make(chan string, 1)
	go func() {
		defer close(d.ended)
		found <- readBaseURL(out)
		_, _ = io.Copy(io.Discard, out) // until it ends
		_ = d.connect.Wait()            // its status is nobody's: the demo ends it
	}()
	ready, cancel := context.WithTimeout(ctx, demoReady)
	defer cancel()
	select {
	case base := <-found:
		if base == "" {
			return "", errors.New("iapctl connect ended before it was ready")
		}
		fmt.Printf("    %s is the model now\n", base)
		return base, nil
	case <-ready.Done():
		return "", errors.Join(ready.Err(), d.end())
	}
}

// readBaseURL finds openai_base_url in the JSON document that connect prints.
func readBaseURL(r io.Reader) string {
	var doc map[string]any
	if json.NewDecoder(io.LimitReader(r, 1<<20)).Decode(&doc) != nil {
		return ""
	}
	return findString(doc, "openai_base_url")
}

func findString(v any, key string) string {
	switch v := v.(type) {
	case map[string]any:
		if text, ok := v[key].(string); ok {
			return text
		}
		for _, inner := range v {
			if text := findString(inner, key); text != "" {
				return text
			}
		}
	case []any:
		for _, inner := range v {
			if text := findString(inner, key); text != "" {
				return text
			}
		}
	}
	return ""
}

// ask streams one chat answer to the terminal.
func (d *demo) ask(ctx context.Context, base string) error {
	model, err := firstModel(ctx, base)
	if err != nil {
		return err
	}
	d.system.model = model
	body, err := json.Marshal(map[string]any{
		"model": model, "stream": true, "max_tokens": demoTokens,
		"messages": []map[string]string{{"role": "user", "content": demoQuestion}},
	})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/chat/completions", bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10))
		return fmt.Errorf("the model answered %s: %s", response.Status, text)
	}
	return printStream(response.Body)
}

// firstModel asks which models there are: a real server has its own.
func firstModel(ctx context.Context, base string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/models", nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&list); err != nil {
		return "", fmt.Errorf("list models: %s: %w", response.Status, err)
	}
	if len(list.Data) == 0 {
		return "", errors.New("the model server has no model; pull one first, such as: ollama pull qwen3:0.6b")
	}
	return list.Data[0].ID, nil
}

func printStream(body io.Reader) error {
	fmt.Print("\n    ")
	column, whole := 4, false
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		if data == "[DONE]" {
			whole = true
			break
		}
		var chunk struct {
			Choices []struct {
				Delta struct {
					Content string `json:"content"`
				} `json:"delta"`
			} `json:"choices"`
		}
		if err := json.Unmarshal([]byte(data), &chunk); err != nil || len(chunk.Choices) == 0 {
			continue
		}
		text := plaintext.Clean(strings.ReplaceAll(chunk.Choices[0].Delta.Content, "\n", " "))
		if column += len(text); column > 76 {
			fmt.Print("\n    ")
			text = strings.TrimLeft(text, " ")
			column = 4 + len(text)
		}
		fmt.Print(text)
	}
	fmt.Println()
	if err := lines.Err(); err != nil {
		return err
	}
	if !whole {
		return errors.New("the answer broke off")
	}
	return nil
}

// end stops `iapctl connect` and waits for it.
func (d *demo) end() error {
	if d.connect == nil || d.connect.Process == nil {
		return nil
	}
	_ = d.connect.Process.Signal(os.Interrupt) // it may have ended with the same Ctrl-C
	select {
	case <-d.ended:
		return nil
	case <-time.After(demoChildEnd):
		return d.connect.Process.Kill()
	}
}

// printHowTo says how to go on by hand.
func (s *devSystem) printHowTo(w io.Writer) {
	ctl := "iapctl"
	if path, err := besideMe("iapctl"); err == nil {
		ctl = path
		if wd, err := os.Getwd(); err == nil {
			if rel, err := filepath.Rel(wd, path); err == nil && !strings.HasPrefix(rel, "..") {
				ctl = rel
			}
		}
	}
	fmt.Fprintf(w, `
==> Go on by hand in a second terminal, in this folder:

    export IAP_CONFIG_DIR=%s
    %s login %s --ca-file %s
    %s connect %s --detach
    eval "$(%s env %s)"
    curl "$OPENAI_BASE_URL/chat/completions" -H 'Content-Type: application/json' \
      -d '{"model":"%s","stream":true,"messages":[{"role":"user","content":"Hello"}]}'

    alice (group ml-eng) may use the model; bob and mallory may not: try it.
    The audit log is in %s.
    Ctrl-C ends everything.
`, filepath.Join(s.dir, "you"), ctl, s.name, s.ca, ctl, devResource, ctl, devResource, plaintext.Clean(s.model), filepath.Join(s.dir, "relay", "audit"))
}
