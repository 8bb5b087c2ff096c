package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"iap/internal/audit"
	"iap/internal/audit/recording"
	"iap/internal/relay/settings"
	"iap/internal/sealed"
	"iap/tunnel"
)

// recordedGrants record what alice asks; bob may do nothing but list.
const recordedGrants = `version: 1
grants:
  - {name: watched, to: ["user:corp/alice"], resources: ["*"], actions: [chat, complete, embed, list-models], record: true}
  - {name: unwatched, to: ["user:corp/bob"], resources: ["*"], actions: [chat, list-models]}
`

// recorder is a system that records for an auditor.
type recorder struct {
	*system
	key  sealed.Identities
	slow *slowChat
	m    *modelServer
}

// whispered is what only the auditor may read.
const whispered = "the-canary-sings-at-dawn"

func startRecorder(t *testing.T) *recorder {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	must(t, err)
	slow := newSlowChat()
	r := &recorder{slow: slow}
	r.m = newModelServer(t, func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		q.Body = io.NopCloser(bytes.NewReader(nil))
		switch {
		case bytes.Contains(body, []byte("slowly")):
			slow.serve(w, q)
		default:
			w.Header().Set("Content-Type", "text/event-stream")
			w.Header().Set("Set-Cookie", "secret=1")
			fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"content\":%q}}]}\n\ndata: [DONE]\n\n", whispered)
		}
	})
	r.system = newSystem(t, recordedGrants, func(c *settings.Config) {
		c.Audit.Recording = settings.RecordingConfig{Recipients: []string{identity.Recipient().String()}, Dir: filepath.Join(c.Data, "recordings"), MaxBytes: 1 << 20, Disk: 1 << 30}
	})
	file := filepath.Join(t.TempDir(), "auditor.key")
	writeFile(t, file, identity.String()+"\n")
	r.key, err = sealed.ReadIdentities(file)
	must(t, err)
	r.startAgent(served{"phi3", "model", r.m.URL})
	return r
}

func (r *recorder) ask(ctx context.Context, who, prompt string) (*http.Response, error) {
	r.t.Helper()
	c := client(r.t, r.user(map[string]any{"sub": who}).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	body := fmt.Sprintf(`{"model":"phi3","stream":true,"messages":[{"role":"user","content":%q}]}`, prompt)
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://phi3/v1/chat/completions", strings.NewReader(body))
	must(r.t, err)
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("Authorization", "Bearer "+whispered)
	answer, err := c.Do(q)
	if err == nil {
		r.t.Cleanup(func() { answer.Body.Close() })
	}
	return answer, err
}

// opened are both sides of a request's recording, which are those that the audit log tells of.
func (r *recorder) opened(id string) (asked, answered *recording.Side) {
	r.t.Helper()
	outcome := r.awaitEvent("the outcome of "+id, func(e audit.Event) bool { return e.Kind == audit.KindOutcome && e.Request == id })
	decision := r.awaitEvent("the decision on "+id, func(e audit.Event) bool { return e.Kind == audit.KindDecision && e.Request == id })
	files, err := recording.Find(r.cfg.Audit.Recording.Dir, id)
	must(r.t, err)
	asked, err = recording.Open(files[0], r.key)
	must(r.t, err)
	answered, err = recording.Open(files[1], r.key)
	must(r.t, err)
	if asked.Mark().String() != decision.Detail["recorded"] || answered.Mark().String() != outcome.Detail["recorded"] {
		r.t.Errorf("%s is recorded as %v and %v, the log says %v and %v", id, asked.Mark(), answered.Mark(), decision.Detail, outcome.Detail)
	}
	return asked, answered
}

func TestWhatAGrantRecordsOnlyTheAuditorReads(t *testing.T) {
	r := startRecorder(t)
	r.subtest("a stream, whole", func(t *testing.T) {
		answer, err := r.ask(within(t), "alice", "say it: "+whispered)
		must(t, err)
		got, err := io.ReadAll(answer.Body)
		must(t, err)
		if answer.Header.Get("X-Iap-Recorded") != "true" {
			t.Error("the caller is not told")
		}
		asked, answered := r.opened(answer.Header.Get("X-Request-Id"))
		if !strings.Contains(string(asked.Body), whispered) || asked.Grant != "watched" || asked.Header["Authorization"] != nil {
			t.Errorf("asked %s, %+v", asked.Body, asked)
		}
		if string(answered.Body) != string(got) || !strings.Contains(string(got), "[DONE]") || answered.Ended != "completed" || answered.Header["Set-Cookie"] != nil {
			t.Errorf("answered %q, the caller got %q", answered.Body, got)
		}
	})
	r.subtest("a caller that leaves", func(t *testing.T) {
		ctx, leave := context.WithCancel(within(t))
		defer leave()
		answer, err := r.ask(ctx, "alice", "slowly "+whispered)
		must(t, err)
		<-r.slow.begun
		leave()
		_, answered := r.opened(answer.Header.Get("X-Request-Id"))
		if answered.Ended != "client_gone" || !answered.Whole {
			t.Errorf("%+v", answered)
		}
	})
	r.subtest("an answer that is cut", func(t *testing.T) {
		answer, err := r.ask(within(t), "alice", "slowly "+whispered)
		must(t, err)
		<-r.slow.begun
		r.setPolicy(strings.ReplaceAll(recordedGrants, "corp/alice", "corp/nobody"))
		_, _ = io.ReadAll(answer.Body)
		_, answered := r.opened(answer.Header.Get("X-Request-Id"))
		if answered.Ended != "policy_changed" || !strings.Contains(string(answered.Body), "one") || !strings.Contains(string(answered.Body), "policy_changed") {
			t.Errorf("%+v %q", answered, answered.Body)
		}
		r.setPolicy(recordedGrants)
	})
	r.subtest("whoever is not recorded, or denied", func(t *testing.T) {
		for who, status := range map[string]int{"bob": 200, "eve": 403} {
			answer, err := r.ask(within(t), who, whispered)
			if who == "eve" && err != nil {
				continue // not even a stream
			}
			must(t, err)
			_, _ = io.ReadAll(answer.Body)
			_, missing := recording.Find(r.cfg.Audit.Recording.Dir, answer.Header.Get("X-Request-Id"))
			if answer.StatusCode != status || !errors.Is(missing, fs.ErrNotExist) || answer.Header.Get("X-Iap-Recorded") != "" {
				t.Errorf("%s: %s, %v", who, answer.Status, missing)
			}
		}
	})
	r.subtest("nothing of it is in the relay's folder", func(t *testing.T) {
		must(t, filepath.WalkDir(r.cfg.Data, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if bytes.Contains(data, []byte(whispered)) {
				t.Errorf("%s holds the prompt", path)
			}
			return err
		}))
	})
	r.subtest("a folder that takes nothing", func(t *testing.T) {
		dir := r.cfg.Audit.Recording.Dir
		must(t, os.Rename(dir, dir+".away"))
		writeFile(t, dir, "") // no folder any more
		hits := r.m.hits.Load()
		answer, err := r.ask(within(t), "alice", whispered)
		must(t, err)
		text, _ := io.ReadAll(answer.Body)
		if answer.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(text), "recording_unavailable") || r.m.hits.Load() != hits {
			t.Errorf("%s %s", answer.Status, text)
		}
		if answer, err = r.ask(within(t), "bob", "hello"); err != nil || answer.StatusCode != 200 {
			t.Errorf("who is not recorded: %v %v", answer, err)
		}
	})
}

func TestARelayThatStopsEndsItsRecordings(t *testing.T) {
	r := startRecorder(t)
	answer, err := r.ask(within(t), "alice", "slowly "+whispered)
	must(t, err)
	<-r.slow.begun
	must(t, r.end())
	_, _ = io.ReadAll(answer.Body)
	_, answered := r.opened(answer.Header.Get("X-Request-Id"))
	if !answered.Whole || answered.Ended == "completed" || answered.Ended == "" {
		t.Errorf("%+v", answered)
	}
}

func TestWhereNothingCanBeRecordedWhatMustBeIsRefused(t *testing.T) {
	m := newModelServer(t, func(w http.ResponseWriter, _ *http.Request) { completion(w, "x") })
	s := newSystem(t, recordedGrants)
	s.startAgent(served{"phi3", "model", m.URL})
	c := client(t, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	answer, err := postChat(c, chatBody("phi3", false))
	must(t, err)
	if text, _ := io.ReadAll(answer.Body); answer.StatusCode != 503 || !strings.Contains(string(text), "recording_unavailable") || m.hits.Load() != 0 {
		t.Errorf("%s %s", answer.Status, text)
	}
	answer.Body.Close()
	answer, err = c.Get("http://phi3/v1/models") // it carries no prompt
	must(t, err)
	if answer.Body.Close(); answer.StatusCode != 200 {
		t.Errorf("%s", answer.Status)
	}
}
