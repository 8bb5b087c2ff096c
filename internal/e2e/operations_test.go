package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The operator's page is true: each of its commands is typed in its order, by the administrator alice, and prints what the page shows.
func TestTheOperationsPageIsTrue(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{grants: `version: 1
grants:
  - name: everybody
    to: ["any:dev"]
    resources: ["*"]
    actions: [chat, list-models]
    keys: {max_ttl: 90d}
admins: ["user:dev/alice"]
`})
	up, _ := startDemo(t, 500)
	a := s.startAgent(map[string]string{"phi3=model": up.url})
	alice, bob := s.loggedIn("alice"), s.loggedIn("bob")
	bob.ok(nil, "keys", "create", "--name", "editor", "--resource", "phi3", "--actions", "chat")
	bob.connect("phi3")

	agent := filepath.Base(filepath.Dir(a.config))
	ours := strings.NewReplacer("corp/", "dev/", "gpu-1", agent)
	commands := 0
	for _, c := range typedOn(t, filepath.Join("..", "..", "docs", "operations.md")) {
		commands++
		words := strings.Fields(ours.Replace(c.command))
		if words[0] != "iapctl" {
			words = append(words, "--config", s.config)
		}
		got := run(t, alice.env, words[0], words[1:]...)
		if got.code != 0 {
			t.Errorf("%s: exit status %d\n%s", c.command, got.code, got.errOut)
		}
		if want := ours.Replace(c.output); !shows(got.out, want) {
			t.Errorf("%s printed\n%s\nand the page says\n%s", c.command, got.out, want)
		}
	}
	if commands < 18 {
		t.Errorf("%d commands were found on the page", commands)
	}
}

// Commands that stand within the page's sentences exist, and take the flags they are shown with.
func TestTheOperationsPageNamesWhatExists(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	helps := map[string]string{}
	flag := regexp.MustCompile(`--?[a-z]+(-[a-z]+)*`)
	for _, m := range regexp.MustCompile("`((?:iapctl|iap-relay|iap-agent) [a-z][^`…]*)`").FindAllStringSubmatch(string(page), -1) {
		var verbs []string
		for _, word := range strings.Fields(m[1])[1:] {
			if !regexp.MustCompile(`^[a-z]+$`).MatchString(word) {
				break
			}
			verbs = append(verbs, word)
		}
		key := strings.Join(append([]string{strings.Fields(m[1])[0]}, verbs...), " ")
		if helps[key] == "" {
			got := run(t, baseEnv(t.TempDir()), strings.Fields(key)[0], append(verbs, "--help")...)
			if got.code != 0 || !strings.Contains(got.out, key) {
				t.Errorf("%q: there is no %q: %s%s", m[1], key, got.out, got.errOut)
			}
			helps[key] = got.out
		}
		for _, word := range strings.Fields(m[1]) {
			if strings.HasPrefix(word, "-") && !strings.Contains(helps[key], flag.FindString(word)) {
				t.Errorf("%q: %q takes no %s", m[1], key, word)
			}
		}
	}
	if len(helps) < 10 {
		t.Errorf("%d commands were found in the page's sentences", len(helps))
	}
}

// typed is a command of a page with what it prints.
type typed struct{ command, output string }

// typedOn reads the console blocks of a page.
func typedOn(t *testing.T, page string) []typed {
	t.Helper()
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var all []typed
	inside := false
	for line := range strings.Lines(string(data)) {
		command, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case strings.HasPrefix(line, "```"):
			inside = strings.TrimSpace(line) == "```console"
		case inside && isCommand:
			all = append(all, typed{command: strings.TrimSpace(command)})
		case inside:
			all[len(all)-1].output += line
		}
	}
	return all
}

// shows reports whether the lines that a page shows are in a text in their order, where … is anything.
func shows(text, page string) bool {
	lines := strings.Split(text, "\n")
	for want := range strings.Lines(page) {
		words := strings.Fields(want)
		for i, word := range words {
			words[i] = strings.ReplaceAll(regexp.QuoteMeta(word), "…", ".*")
		}
		pattern := regexp.MustCompile("^" + strings.ReplaceAll(`\s*`+strings.Join(words, `\s+`), `.*\s+`, ".*") + `\s*$`)
		if strings.TrimSpace(want) == "…" {
			continue
		}
		for len(lines) > 0 && !pattern.MatchString(lines[0]) {
			lines = lines[1:]
		}
		if len(lines) == 0 {
			return false
		}
		lines = lines[1:]
	}
	return true
}
