package recording

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"iap/internal/sealed"
)

const canary = "the launch code is 0451"

// auditor makes a key, its public half and what opens with it.
func auditor(t *testing.T) (string, sealed.Identities) {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("# made by a test\n"+identity.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := sealed.ReadIdentities(path)
	if err != nil {
		t.Fatal(err)
	}
	return identity.Recipient().String(), key
}

func keeper(t *testing.T, o Options, recipients ...string) *Keeper {
	t.Helper()
	var err error
	if o.Recipients, err = sealed.ParseRecipients(recipients); err != nil {
		t.Fatal(err)
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	k, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func question(id string) Request {
	return Request{
		ID: id, Resource: "phi3", Action: "chat", Model: "phi3:latest", Grant: "legal", Method: "POST", Path: "/v1/chat/completions?x=1",
		Header: http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer secret"}, "Cookie": {"a=b"}, "X-Iap-Principal": {"corp/ann"}},
		Body:   []byte(`{"prompt":"` + canary + `"}`),
	}
}

// recorded writes one request and its answer, whole.
func recorded(t *testing.T, k *Keeper, id string, answer ...string) (Mark, Mark) {
	t.Helper()
	r, asked, err := k.Begin(question(id))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Answer(200, http.Header{"Content-Type": {"text/event-stream"}, "Set-Cookie": {"s=1"}}); err != nil {
		t.Fatal(err)
	}
	for _, piece := range answer {
		if n, err := io.WriteString(r, piece); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
	}
	answered, err := r.End("completed")
	if err != nil {
		t.Fatal(err)
	}
	return asked, answered
}

func opened(t *testing.T, k *Keeper, id string, key sealed.Identities) (asked, answered *Side) {
	t.Helper()
	files, err := Find(k.dir, id)
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	if asked, err = Open(files[0], key); err != nil {
		t.Fatal(err)
	}
	if answered, err = Open(files[1], key); err != nil {
		t.Fatal(err)
	}
	return asked, answered
}

func TestEachRecipientOpensWhatWasAskedAndAnswered(t *testing.T) {
	first, firstKey := auditor(t)
	second, secondKey := auditor(t)
	k := keeper(t, Options{Sync: true}, first, second)
	wasAsked, wasAnswered := recorded(t, k, "rq-1", "data: one\n\n", "data: "+canary+"\n\n")
	for _, key := range []sealed.Identities{firstKey, secondKey} {
		asked, answered := opened(t, k, "rq-1", key)
		if string(asked.Body) != string(question("").Body) || asked.Path != "/v1/chat/completions?x=1" || asked.Grant != "legal" || !asked.Whole || asked.Cut {
			t.Errorf("asked %+v", asked)
		}
		if string(answered.Body) != "data: one\n\ndata: "+canary+"\n\n" || answered.Status != 200 || answered.Ended != "completed" || !answered.Whole {
			t.Errorf("answered %+v", answered)
		}
		if asked.Mark() != wasAsked || answered.Mark() != wasAnswered {
			t.Error("the marks are not those of the files")
		}
		for _, h := range []map[string][]string{asked.Header, answered.Header} {
			if len(h) != 1 || h["Content-Type"] == nil {
				t.Errorf("headers %v", h)
			}
		}
	}
	if m, ok := ParseMark(wasAsked.String()); !ok || m != wasAsked {
		t.Errorf("%v read back as %v", wasAsked, m)
	}
}

func TestWhoHoldsNoKeyReadsNothing(t *testing.T) {
	recipient, _ := auditor(t)
	_, strangers := auditor(t)
	k := keeper(t, Options{}, recipient)
	recorded(t, k, "rq-1", strings.Repeat(canary, 10_000))
	files, _ := Find(k.dir, "rq-1")
	for _, file := range files {
		if _, err := Open(file, strangers); !errors.Is(err, ErrNotForKey) {
			t.Errorf("%s: %v", file, err)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{canary, "phi3", "legal", "corp", "completions"} {
			if bytes.Contains(data, []byte(word)) {
				t.Errorf("%s says %q in the clear", file, word)
			}
		}
	}
}

func TestEveryChangedByteIsFound(t *testing.T) {
	recipient, key := auditor(t)
	k := keeper(t, Options{}, recipient)
	_, mark := recorded(t, k, "rq-1", "a short answer")
	files, _ := Find(k.dir, "rq-1")
	good, err := os.ReadFile(files[1])
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		path := filepath.Join(t.TempDir(), "rq-1.answer.age")
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(path, key); err == nil {
			t.Fatalf("byte %d changed: %+v", i, s)
		}
		if err := os.WriteFile(path, good[:i], 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(path, key); err == nil && (s.Whole || s.Mark() == mark) {
			t.Fatalf("cut to %d bytes: %+v", i, s)
		}
	}
}

// A relay that is killed leaves an answer in whole chunks, without its end.
func TestAnAnswerWhoseRelayWasKilledOpensAsFarAsItGoes(t *testing.T) {
	recipient, key := auditor(t)
	k := keeper(t, Options{}, recipient)
	for id, pieces := range map[string]int{"rq-early": 0, "rq-late": 40} {
		r, _, err := k.Begin(question(id))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Answer(200, nil); err != nil {
			t.Fatal(err)
		}
		for range pieces {
			if _, err := r.Write(bytes.Repeat([]byte("0123456789abcdef"), 256)); err != nil {
				t.Fatal(err)
			}
		}
		asked, answered := opened(t, k, id, key)
		r.answer.abandon()
		if !asked.Whole || answered.Whole || answered.Side != SideAnswer || answered.Request != id {
			t.Errorf("%s: %+v", id, answered)
		}
		if got := len(answered.Body); pieces > 0 && (got < pieces*4096-(64<<10) || got > pieces*4096) {
			t.Errorf("%s: %d bytes of %d", id, got, pieces*4096)
		}
	}
}

func TestWhatIsLongerThanTheLimitIsCutAndSaysSo(t *testing.T) {
	recipient, key := auditor(t)
	k := keeper(t, Options{MaxBody: 20}, recipient)
	recorded(t, k, "rq-1", "0123456789", "0123456789abc", "never")
	asked, answered := opened(t, k, "rq-1", key)
	if string(answered.Body) != "01234567890123456789" || !answered.Cut || !answered.Whole || answered.Of != 28 {
		t.Errorf("%+v", answered)
	}
	if len(asked.Body) != 20 || !asked.Cut || asked.Of != int64(len(question("").Body)) {
		t.Errorf("%+v", asked)
	}
}

func TestAFullFolderTakesNoMoreUntilThereIsRoom(t *testing.T) {
	recipient, _ := auditor(t)
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	k := keeper(t, Options{MaxDisk: 100, Now: func() time.Time { return now }}, recipient)
	recorded(t, k, "rq-1", "answer")
	if _, _, err := k.Begin(question("rq-2")); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(k.dir, "2026-11-24")); err != nil { // somebody makes room
		t.Fatal(err)
	}
	now = now.Add(2 * recount)
	recorded(t, k, "rq-2", "answer")
}

func TestADiscardedRequestLeavesNothing(t *testing.T) {
	recipient, _ := auditor(t)
	k := keeper(t, Options{}, recipient)
	r, _, err := k.Begin(question("rq-1"))
	if err == nil {
		err = r.Discard()
	}
	if err != nil {
		t.Fatal(err)
	}
	if files, _, err := weigh(k.dir); files != 0 || err != nil || k.used.Load() != 0 {
		t.Error(files, err, k.used.Load())
	}
}

func TestAFolderThatCannotBeWrittenRefuses(t *testing.T) {
	recipient, _ := auditor(t)
	k := keeper(t, Options{}, recipient)
	if err := os.RemoveAll(k.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(k.dir, nil, 0o600); err != nil { // root writes into every folder, but into no file
		t.Fatal(err)
	}
	if _, _, err := k.Begin(question("rq-1")); err == nil {
		t.Error("begun")
	}
	for _, id := range []string{"", "../x", "a/b", ".hidden", strings.Repeat("x", 65)} {
		if _, _, err := keeper(t, Options{}, recipient).Begin(question(id)); err == nil {
			t.Errorf("begun as %q", id)
		}
	}
}

func TestNothingExpiresBeforeThatIsSaid(t *testing.T) {
	recipient, _ := auditor(t)
	now := time.Date(2026, 11, 1, 23, 59, 0, 0, time.UTC)
	var said []string
	var refuse error
	k := keeper(t, Options{
		Retain: 48 * time.Hour, Now: func() time.Time { return now },
		Expiring: func(_ context.Context, day string, files int, bytes int64) error {
			if files != 2 || bytes <= 0 {
				t.Errorf("%d files, %d bytes", files, bytes)
			}
			said = append(said, day)
			return refuse
		},
	}, recipient)
	recorded(t, k, "rq-old", "x")
	if err := os.WriteFile(filepath.Join(k.dir, "notes"), nil, 0o600); err != nil { // not ours
		t.Fatal(err)
	}
	now = time.Date(2026, 11, 3, 23, 59, 0, 0, time.UTC) // two days, but not of the day's last
	if err := k.Expire(t.Context()); err != nil || len(said) != 0 {
		t.Fatal(said, err)
	}
	now, refuse = now.Add(time.Hour), errors.New("the log takes nothing")
	if err := k.Expire(t.Context()); !errors.Is(err, refuse) {
		t.Fatal(err)
	}
	if _, err := Find(k.dir, "rq-old"); err != nil {
		t.Fatal("it went unsaid")
	}
	refuse = nil
	if err := k.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(k.dir, "rq-old"); !errors.Is(err, fs.ErrNotExist) || len(said) != 2 || k.used.Load() != 0 {
		t.Error(err, said, k.used.Load())
	}
	if _, err := os.Stat(filepath.Join(k.dir, "notes")); err != nil {
		t.Error(err)
	}
}

func TestAForeignFileIsNamedForWhatItIs(t *testing.T) {
	recipient, key := auditor(t)
	k := keeper(t, Options{}, recipient)
	dir := t.TempDir()
	text, other := filepath.Join(dir, "text"), filepath.Join(dir, "other.age")
	if err := os.WriteFile(text, []byte(strings.Repeat("not encrypted at all\n", 50)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(text, key); !errors.Is(err, ErrNotAge) {
		t.Error(err)
	}
	var b bytes.Buffer
	w, err := k.recipients.Writer(&b)
	if err == nil {
		_, err = io.WriteString(w, "somebody's mail\nwith lines\n")
	}
	if err = errors.Join(err, w.Close(), os.WriteFile(other, b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(other, key); !errors.Is(err, errNoParts) {
		t.Error(err)
	}
}
