package modelapi

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// page is the document whose tables are written from the data.
const page = "../../docs/model-servers.md"

func TestPageSaysWhatTheTablesSay(t *testing.T) {
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	want := between(t, string(data), "routes", routesTable(t))
	want = between(t, want, "fields", fieldsTable())
	if want == string(data) {
		return
	}
	if os.Getenv("UPDATE_PAGE") == "" {
		t.Fatal("docs/model-servers.md differs from the data; write it anew with UPDATE_PAGE=1 go test -run TestPage ./internal/modelapi")
	}
	if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// between replaces what stands between two marks.
func between(t *testing.T, text, name, body string) string {
	t.Helper()
	begin, end := "<!-- "+name+": begin -->\n", "<!-- "+name+": end -->"
	before, rest, found := strings.Cut(text, begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no place for %s", page, name)
	}
	return before + begin + body + end + after
}

func routesTable(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, server := range Servers() {
		table, err := NewTable(server)
		if err != nil {
			t.Fatal(err)
		}
		rs := table.servers[server]
		byAction := map[Action]map[string][]string{} // action, path: methods
		note := func(r *route) {
			if byAction[r.action] == nil {
				byAction[r.action] = map[string][]string{}
			}
			byAction[r.action][r.path] = append(byAction[r.action][r.path], r.method)
		}
		for _, r := range rs.literal {
			note(r)
		}
		for _, r := range rs.patterns {
			note(r)
		}
		fmt.Fprintf(&b, "\n### %s\n\n| action | requests |\n| --- | --- |\n", serverTitle(server))
		for _, action := range vocabulary() {
			if lines := requestsOf(byAction[action]); lines != "" {
				fmt.Fprintf(&b, "| `%s` | %s |\n", action, lines)
			}
		}
		if lines := requestsOf(byAction[Unknown]); lines != "" {
			fmt.Fprintf(&b, "| never | %s |\n", lines)
		}
	}
	return b.String() + "\n"
}

func vocabulary() []Action {
	return []Action{
		Chat, Complete, Embed, Rerank, Transcribe, Tokenize, ListModels, InspectModel, ManageModel, Session, Tool,
		Observe, ServerAdmin, Health, UI,
	}
}

func serverTitle(server string) string {
	switch server {
	case ServerOllama:
		return "Ollama"
	case ServerOpenAI:
		return "Any other server that speaks OpenAI's API"
	}
	return server
}

// requestsOf lists paths in order, each with its methods.
func requestsOf(paths map[string][]string) string {
	var lines []string
	for path, methods := range paths {
		slices.Sort(methods)
		lines = append(lines, "`"+strings.Join(methods, ", ")+" "+path+"`")
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[strings.Index(a, "/"):], b[strings.Index(b, "/"):]) })
	return strings.Join(lines, ", ")
}

func fieldsTable() string {
	words := map[verb]string{
		identity: "part of the model's name", owner: "must be the caller's own", pass: "passes", strip: "dropped", deny: "refused",
		keep: "dropped but for harmless members", capped: "capped, and written where it is absent", lower: "lowered with the cap",
		count: "multiplies what is reserved", batch: "multiplies what is reserved", inputs: "bounded", usage: "set by the relay",
		overwrite: "overwritten", dataURI: "inline data only", tooled: "needs `tool` if the server would run it",
	}
	var b strings.Builder
	b.WriteString("\n| field | what becomes of it | why |\n| --- | --- | --- |\n")
	for i := range rules().rows {
		r := &rules().rows[i]
		field := r.Field
		if !slices.Contains(r.In, "top") {
			field += " (" + strings.Join(r.In, ", ") + ")"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", field, words[r.Verb], strings.ReplaceAll(r.Why, "|", `\|`))
	}
	return b.String() + "\n"
}
