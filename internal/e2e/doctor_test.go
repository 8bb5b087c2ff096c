package e2e

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"iap/internal/dev"
)

// finding is one stage as `iapctl doctor -o json` tells of it.
type finding struct {
	Stage, Verdict, Found, Code, Next string
	MS                                float64
}

type checkup struct {
	Schema string
	OK     bool
	Stages []finding
}

// doctor runs a doctor that must end with the exit status, and reads what it says.
func (u *user) doctor(exit int, args ...string) checkup {
	u.t.Helper()
	got := u.run(append([]string{"doctor", "-o", "json"}, args...)...)
	var doc checkup
	if err := json.Unmarshal([]byte(got.out), &doc); err != nil || got.code != exit {
		u.t.Fatalf("iapctl doctor %v: exit status %d, want %d: %v\n%s%s", args, got.code, exit, err, got.out, got.errOut)
	}
	if doc.Schema != "iapctl/v1" || doc.OK != (exit == 0) || len(doc.Stages) != 11 {
		u.t.Errorf("iapctl doctor %v: %+v", args, doc)
	}
	return doc
}

// finds runs a doctor in which one stage must fail: those before it did not, those behind it were not looked at.
func (u *user) finds(exit int, stage, code string, args ...string) finding {
	u.t.Helper()
	doc := u.doctor(exit, args...)
	at := slices.IndexFunc(doc.Stages, func(f finding) bool { return f.Stage == stage })
	for i, f := range doc.Stages {
		switch {
		case i == at && (f.Verdict != "fail" || f.Code != code || f.Found == "" || f.Next == ""),
			i < at && f.Verdict == "fail", i > at && f.Verdict != "skipped":
			u.t.Errorf("%s should fail with %s; %s: %+v", stage, code, f.Stage, f)
		}
	}
	return doc.Stages[at]
}

// pointAt makes a user's profile lead to another address, as a wrong name or a changed network would.
func (u *user) pointAt(from, to string) *user {
	u.t.Helper()
	home := ""
	for _, kv := range u.env {
		if value, ok := strings.CutPrefix(kv, "IAP_CONFIG_DIR="); ok {
			home = value
		}
	}
	dir := u.t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(home)); err != nil {
		u.t.Fatal(err)
	}
	changed := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), from) {
			return err
		}
		changed++
		return os.WriteFile(path, []byte(strings.ReplaceAll(string(text), from, to)), 0o600)
	})
	if err != nil || changed == 0 {
		u.t.Fatalf("no file in %s names %s: %v", home, from, err)
	}
	return u.with("IAP_CONFIG_DIR=" + dir)
}

// otherAuthority serves h with a certificate of an authority that nobody was told of.
func otherAuthority(t *testing.T, h http.Handler) (address, ca string) {
	t.Helper()
	files, err := dev.Certificates(t.TempDir(), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return serveTLS(t, files, h), files.CA
}

func TestDoctorWalksTheWholeWayToAModel(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, _ := startDemo(t, 500)
	web := startUpstream(t, newWebApp().handler())
	s.startAgent(map[string]string{"phi3=model": up.url, "app=http": web.url, "db=tcp": strings.TrimPrefix(web.url, "http://")})
	alice := s.loggedIn("alice")
	for resource, upstream := range map[string]string{"phi3": "lists its models", "app": "answers", "db": "takes connections"} {
		stages := alice.doctor(0, resource).Stages
		for _, f := range stages {
			if f.Verdict != "ok" || f.Found == "" || f.MS < 0 {
				t.Errorf("%s: %+v", resource, f)
			}
		}
		if last := stages[len(stages)-1]; last.Found != upstream {
			t.Errorf("%s: %+v", resource, last)
		}
	}
	screen := alice.run("doctor", "phi3")
	if screen.code != 0 || strings.Contains(screen.out+screen.errOut, "eyJ") {
		t.Errorf("doctor shows a token, or fails with %d: %s%s", screen.code, screen.out, screen.errOut)
	}
	for line := range strings.Lines(screen.out) {
		if width := utf8.RuneCountInString(strings.TrimRight(line, "\n")); width > 80 && len(strings.Fields(line)) > 4 {
			t.Errorf("a line of %d columns: %s", width, line)
		}
	}
	last := alice.doctor(0).Stages[10]
	if last.Stage != "upstream" || last.Verdict != "skipped" {
		t.Errorf("without a resource: %+v", last)
	}
}

func TestDoctorNamesTheStageOfTheWayThatIsBroken(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	alice := s.loggedIn("alice")

	s.user("nobody").finds(4, "configuration", "login_required")
	alice.pointAt(s.name, "relay.iap.invalid").finds(7, "name", "relay_unknown_name")
	alice.pointAt(s.name, freeAddress(t)).finds(7, "tcp", "relay_unreachable")

	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	alice.pointAt(s.name, strings.TrimPrefix(plain.URL, "http://")).finds(7, "tls", "not_a_relay")

	address, _ := otherAuthority(t, http.NotFoundHandler())
	got := alice.pointAt(s.name, address).finds(7, "tls", "tls_intercepted")
	if !strings.Contains(got.Found, "authority") {
		t.Errorf("the authority in between is not named: %+v", got)
	}
	s.user("stranger", "IAP_RELAY="+address).finds(7, "tls", "relay_certificate", "--ca-file", s.ca)

	alice.pointAt(s.name, serveTLS(t, s.certificate(), http.NotFoundHandler())).finds(7, "upgrade", "not_a_relay")
}

// An interceptor whose authority the machine trusts passes as TLS. It cannot pass where both ends sign the connection they see.
func TestDoctorNamesAnInterceptorThatTheMachineTrusts(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{host: "relay.iap.test"})
	alice := s.loggedIn("alice", startProxy(t, "s3cret", s.name, s.listen).env("s3cret"))
	between := startProxy(t, "s3cret", s.name, interceptor(t, s))
	got := alice.with(between.env("s3cret")).finds(4, "session", "pop_failed")
	if !strings.Contains(got.Found, "TLS was signed by") {
		t.Errorf("the authority in between is not named: %+v", got)
	}
}

func TestDoctorNamesAProxyThatRefuses(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{host: "relay.iap.test"})
	proxy := startProxy(t, "s3cret", s.name, s.listen)
	alice := s.loggedIn("alice", proxy.env("s3cret"))
	doc := alice.doctor(0)
	if f := doc.Stages[2]; f.Stage != "proxy" || !strings.Contains(f.Found, strings.TrimPrefix(proxy.server.URL, "http://")) {
		t.Errorf("the proxy is not named: %+v", f)
	}
	got := alice.with(proxy.env("wr0ng")).finds(7, "proxy", "proxy_auth_required")
	if strings.Contains(got.Found, "wr0ng") {
		t.Errorf("the proxy's password is shown: %+v", got)
	}
	alice.pointAt(s.name, "other.iap.test").finds(7, "proxy", "proxy_refused")
	alice.with("HTTPS_PROXY=http://"+freeAddress(t)).finds(7, "proxy", "proxy_failed")
}

func TestDoctorTellsALoginThatIsOver(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{provider: dev.ProviderOptions{IDLifetime: shortLife}})
	alice := s.loggedIn("alice")
	s.provider.DisableUser("alice") // tokens this short are renewed at each use
	if got := alice.finds(4, "identity", "refresh_refused"); !strings.Contains(got.Next, "iapctl login") {
		t.Errorf("%+v", got)
	}
	s.bearing(s.provider.Mint(map[string]any{"aud": "somebody else"})).finds(4, "identity", "token_invalid", "--ca-file", s.ca)
}

func TestDoctorTellsPolicyAgentAndUpstreamApart(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{grants: strings.Replace(usualGrants, `resources: ["*"]`, `resources: [phi3, gone, dead]`, 1)})
	up, _ := startDemo(t, 500)
	s.startAgent(map[string]string{"phi3=model": up.url, "secret=model": up.url})
	s.enrol(map[string]string{"gone=model": up.url})
	s.startAgent(map[string]string{"dead=model": "http://" + freeAddress(t)})
	alice := s.loggedIn("alice")

	alice.doctor(0, "phi3")
	if got := alice.finds(5, "policy", "resource_not_granted", "secret"); !strings.Contains(got.Found, "closest: ") {
		t.Errorf("the grant that came closest is not named: %+v", got)
	}
	alice.finds(6, "agent", "agent_offline", "gone")
	alice.finds(6, "upstream", "upstream_unreachable", "dead")
}

// serveTLS serves h with a certificate until the test ends.
func serveTLS(t *testing.T, files dev.CertFiles, h http.Handler) (address string) {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are what the tests are about
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// certificate is what the relay itself serves.
func (s *system) certificate() dev.CertFiles {
	dir := filepath.Dir(s.ca)
	return dev.CertFiles{CA: s.ca, Cert: filepath.Join(dir, "server.pem"), Key: filepath.Join(dir, "server-key.pem")}
}

// interceptor ends TLS and begins it anew to the relay, reading all that passes.
func interceptor(t *testing.T, s *system) (address string) {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(s.certificate().Cert, s.certificate().Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		group.Wait()
	})
	toRelay := s.client().Transport.(*http.Transport).TLSClientConfig
	toRelay.NextProtos = []string{"http/1.1"}
	group.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := tls.Dial("tcp", s.listen, toRelay)
			if err != nil {
				near.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
				group.Go(func() {
					_, _ = io.Copy(way[0], way[1]) // whichever end breaks off ends both
					near.Close()
					far.Close()
				})
			}
		}
	})
	return l.Addr().String()
}
