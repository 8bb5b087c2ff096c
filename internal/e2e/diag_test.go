package e2e

import (
	"archive/zip"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestLL09ReportsHoldNoSecrets plants a marker in every place where a secret can be, and looks for them in what a person
// would send: the zip of `iapctl diag`, and what every command says with -vv.
func TestLL09ReportsHoldNoSecrets(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, _ := startDemo(t, 500)
	s.startAgent(map[string]string{"phi3=model": up.url})
	const prompt, proxy, token = "MARKERPROMPT07f3", "MARKERPROXY9c1e", "MARKERTOKEN55ab"
	alice := s.loggedIn("alice").with(
		"HTTPS_PROXY=http://someone:"+proxy+"@127.0.0.1:1", "NO_PROXY=127.0.0.1", "IAP_TOKEN="+token, "OPENAI_API_KEY="+token+"9",
	)
	t.Cleanup(func() { alice.run("disconnect", "--all") })
	c := alice.connect("phi3", "--detach", "--local-key", "-vv")
	if code := c.wait(); code != 0 {
		t.Fatalf("connect: status %d: %s", code, c.err.text())
	}
	local := c.report.Connections[0].LocalKey
	if got := newCaller(t, c.url()).ask("POST", "/v1/chat/completions", chatBody("demo", prompt, false, 3), "Authorization: Bearer "+local); got.status != 200 {
		t.Fatalf("chat: %+v", got)
	}
	secrets := append(s.credentials(), prompt, proxy, token, local)
	said := c.err.text()
	for _, args := range [][]string{{"status"}, {"resources"}, {"whoami"}, {"doctor", "phi3"}, {"chat", "phi3", prompt}} {
		got := alice.run(append(args, "-vv")...)
		said += got.errOut
		if args[0] != "chat" { // which shows the answer, an echo of what was asked
			said += got.out
		}
	}
	file := filepath.Join(s.dir, "report.zip")
	var doc struct{ Files []struct{ Name string } }
	alice.ok(&doc, "diag", "--resource", "phi3", "--file", file, "-vv")
	names, text := unpack(t, file)
	for _, want := range []string{"version.json", "environment.txt", "profile.json", "state.json", "status.json", "doctor.json", "logs/connect.log"} {
		if !slices.Contains(names, want) || len(doc.Files) != len(names) {
			t.Errorf("%s is not in %v", want, names)
		}
	}
	for _, fact := range []string{s.name, "phi3", `"stage": "upstream"`, "@127.0.0.1:1"} {
		if !strings.Contains(text, fact) {
			t.Errorf("the report tells nothing of %q", fact)
		}
	}
	for _, secret := range secrets {
		if len(secret) < 8 {
			t.Fatalf("%q is no secret to look for", secret)
		}
		if strings.Contains(text, secret) {
			t.Errorf("LL-09: %q is in the zip", secret)
		}
		if strings.Contains(said, secret) {
			t.Errorf("LL-09: %q is said with -vv", secret)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	alice.fails(1, "file_exists", "diag", "--file", file)
}

// credentials are all secrets of all users' logins on disk, in the spellings in which they could leak.
func (s *system) credentials() []string {
	s.t.Helper()
	var all []string
	err := filepath.WalkDir(s.dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".credentials.json") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var c struct {
			Tokens struct {
				Token        string `json:"token"`
				RefreshToken string `json:"refresh_token"`
			} `json:"tokens"`
			Key ed25519.PrivateKey `json:"key"`
		}
		if err := json.Unmarshal(data, &c); err != nil {
			return err
		}
		all = append(all, c.Tokens.Token, c.Tokens.RefreshToken, base64.StdEncoding.EncodeToString(c.Key), base64.StdEncoding.EncodeToString(c.Key.Seed()))
		return nil
	})
	if err != nil || len(all) == 0 {
		s.t.Fatalf("no credentials found: %v", err)
	}
	return all
}

// unpack reads a zip.
func unpack(t *testing.T, file string) (names []string, text string) {
	t.Helper()
	z, err := zip.OpenReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		names, text = append(names, f.Name), text+string(data)
	}
	return names, text
}
