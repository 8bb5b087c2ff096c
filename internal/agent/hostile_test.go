package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"iap/tunnel"
)

func TestHonestRequestPasses(t *testing.T) {
	up := newUpstream(t)
	s := startHostileRelay(t).run("  - {name: phi3, kind: model, upstream: \"" + up.URL + "\"}\n")
	if _, reply := send(t, s, chatHeader(), httpRequest("POST", "/v1/chat/completions", chat("phi3"))); !reply.OK {
		t.Errorf("%+v", reply)
	}
	if got := up.requests(); len(got) != 1 {
		t.Errorf("the upstream saw %v", got)
	}
}

func TestAgentRefusesEveryRequestThatIsNotTheOneDecidedOn(t *testing.T) {
	up := newUpstream(t)
	s := startHostileRelay(t).run("  - {name: phi3, kind: model, upstream: \"" + up.URL + "\"}\n" +
		"  - {name: web, kind: http, upstream: \"" + up.URL + "\", opaque: true}\n" +
		"  - {name: db, kind: tcp, upstream: \"" + strings.TrimPrefix(up.URL, "http://") + "\", opaque: true}\n")
	honest := httpRequest("POST", "/v1/chat/completions", chat("phi3"))
	web := tunnel.Header{Resource: "web", Kind: "http", Action: "connect", Method: "GET", Path: "/"}
	for name, one := range map[string]struct {
		header  func(h *tunnel.Header)
		payload []byte
	}{
		"other model in the body":    {func(*tunnel.Header) {}, httpRequest("POST", "/v1/chat/completions", chat("llama3"))},
		"other model in the header":  {func(h *tunnel.Header) { h.Model = "llama3" }, honest},
		"no model in the header":     {func(h *tunnel.Header) { h.Model = "" }, honest},
		"other action":               {func(h *tunnel.Header) { h.Action = "list-models" }, honest},
		"connect on a model":         {func(h *tunnel.Header) { h.Action = "connect" }, honest},
		"other path":                 {func(*tunnel.Header) {}, httpRequest("POST", "/v1/completions", chat("phi3"))},
		"path in another spelling":   {func(h *tunnel.Header) { h.Path = "/v1//chat/completions" }, httpRequest("POST", "/v1//chat/completions", chat("phi3"))},
		"query beside the path":      {func(h *tunnel.Header) { h.Path += "?x=y" }, httpRequest("POST", "/v1/chat/completions?x=y", chat("phi3"))},
		"other method":               {func(*tunnel.Header) {}, httpRequest("PUT", "/v1/chat/completions", chat("phi3"))},
		"other method in both":       {func(h *tunnel.Header) { h.Method = "DELETE" }, httpRequest("DELETE", "/v1/chat/completions", chat("phi3"))},
		"absolute target":            {func(h *tunnel.Header) { h.Path = "http://169.254.169.254/v1/chat/completions" }, httpRequest("POST", "http://169.254.169.254/v1/chat/completions", chat("phi3"))},
		"unknown route":              {func(h *tunnel.Header) { h.Method, h.Path = "GET", "/internal" }, httpRequest("GET", "/internal", "")},
		"unknown resource":           {func(h *tunnel.Header) { h.Resource = "llama" }, honest},
		"no resource":                {func(h *tunnel.Header) { h.Resource = "" }, honest},
		"kind that differs":          {func(h *tunnel.Header) { h.Kind, h.Action = "http", "connect" }, honest},
		"tcp to a model":             {func(h *tunnel.Header) { h.Kind, h.Action = "tcp", "connect" }, honest},
		"tcp to a web resource":      {func(h *tunnel.Header) { *h = web; h.Kind = "tcp" }, httpRequest("GET", "/", "")},
		"model to a web resource":    {func(h *tunnel.Header) { *h = web; h.Kind, h.Action = "model", "chat" }, httpRequest("GET", "/", "")},
		"http to a tcp resource":     {func(h *tunnel.Header) { *h = web; h.Resource = "db" }, httpRequest("GET", "/", "")},
		"chat on a web resource":     {func(h *tunnel.Header) { *h = web; h.Action = "chat" }, httpRequest("GET", "/", "")},
		"web: target of another":     {func(h *tunnel.Header) { *h = web }, httpRequest("GET", "/admin", "")},
		"web: authority in disguise": {func(h *tunnel.Header) { *h = web; h.Path = "//169.254.169.254/" }, httpRequest("GET", "//169.254.169.254/", "")},
		"web: absolute target":       {func(h *tunnel.Header) { *h = web; h.Path = "http://169.254.169.254/" }, httpRequest("GET", "http://169.254.169.254/", "")},
		"model twice in the body":    {func(*tunnel.Header) {}, httpRequest("POST", "/v1/chat/completions", `{"model":"phi3","model":"llama3","messages":[]}`)},
		"model in another case":      {func(*tunnel.Header) {}, httpRequest("POST", "/v1/chat/completions", `{"model":"phi3","Model":"llama3","messages":[]}`)},
		"something behind the body":  {func(*tunnel.Header) {}, httpRequest("POST", "/v1/chat/completions", chat("phi3")+chat("llama3"))},
		"compressed body":            {func(*tunnel.Header) {}, httpRequest("POST", "/v1/chat/completions", chat("phi3"), "Content-Encoding: gzip")},
		"no HTTP":                    {func(*tunnel.Header) {}, []byte("\x00\x01\x02\r\n\r\n")},
		"CONNECT":                    {func(h *tunnel.Header) { *h = web; h.Method, h.Path = "CONNECT", "169.254.169.254:80" }, []byte("CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\n\r\n")},
		"api service":                {func(h *tunnel.Header) { h.Service, h.Resource = "api", "" }, honest},
	} {
		h := chatHeader()
		one.header(&h)
		if _, reply := send(t, s, h, one.payload); reply.OK {
			t.Errorf("%s: passed", name)
		}
	}
	if got := up.requests(); len(got) != 0 {
		t.Errorf("the upstream saw %q", got)
	}
}

func TestAgentKeepsToItsOwnListsOfModelsAndActions(t *testing.T) {
	up := newUpstream(t)
	s := startHostileRelay(t).run("  - {name: phi3, kind: model, upstream: \"" + up.URL + "\", models: [\"phi3*\"], actions: [chat, list-models]}\n" +
		"  - {name: web, kind: http, upstream: \"" + up.URL + "\", opaque: true, actions: [chat]}\n")
	llama := chatHeader()
	llama.Model = "llama3"
	embed := chatHeader()
	embed.Action, embed.Path = "embed", "/v1/embeddings"
	for name, one := range map[string]struct {
		h       tunnel.Header
		payload []byte
		allowed bool
	}{
		"listed":          {chatHeader(), httpRequest("POST", "/v1/chat/completions", chat("phi3")), true},
		"unlisted model":  {llama, httpRequest("POST", "/v1/chat/completions", chat("llama3")), false},
		"unlisted action": {embed, httpRequest("POST", "/v1/embeddings", `{"input":"x","model":"phi3"}`), false},
		"web":             {tunnel.Header{Resource: "web", Kind: "http", Action: "connect", Method: "GET", Path: "/"}, httpRequest("GET", "/", ""), false},
	} {
		_, reply := send(t, s, one.h, one.payload)
		if reply.OK != one.allowed {
			t.Errorf("%s: %+v", name, reply)
		}
	}
	if got := up.requests(); len(got) != 1 {
		t.Errorf("the upstream saw %q", got)
	}
}

func TestID17SealedHeaderIsGoodOnceAndWhereItWasSealed(t *testing.T) {
	up := newUpstream(t)
	r := startHostileRelay(t)
	s := r.run("  - {name: web, kind: http, upstream: \"" + up.URL + "\", opaque: true}\n")
	h := tunnel.Header{Resource: "web", Kind: "http", Request: "rq-replay", Action: "connect", Method: "HEAD", Path: "/once"}
	st, reply := send(t, s, h, httpRequest("HEAD", "/once", ""))
	if !reply.OK {
		t.Fatalf("%+v", reply)
	}
	sealed := r.wire.message(t, `"request":"rq-replay"`)
	replayed := append(append([]byte(nil), sealed...), httpRequest("HEAD", "/once", "")...)
	_, err := st.Write(replayed)
	must(t, err)
	<-st.Done()
	if got := tunnel.CodeOf(st.Err()); got != tunnel.CodeReplayed {
		t.Errorf("on the same stream: %v", st.Err())
	}
	h.Path, h.Request = "/other", "rq-other"
	other, reply := send(t, s, h, httpRequest("HEAD", "/other", ""))
	if !reply.OK {
		t.Fatalf("%+v", reply)
	}
	_, err = other.Write(replayed)
	must(t, err)
	<-other.Done()
	if got := tunnel.CodeOf(other.Err()); got != tunnel.CodeBadMAC {
		t.Errorf("on another stream: %v", other.Err())
	}
	h.Path, h.Request = "/third", "rq-third"
	third, _ := send(t, s, h, httpRequest("HEAD", "/third", ""))
	forged := bytes.Replace(sealed, []byte("/once"), []byte("/twic"), 1)
	_, err = third.Write(append(forged, httpRequest("HEAD", "/twic", "")...))
	must(t, err)
	<-third.Done()
	if got := tunnel.CodeOf(third.Err()); got != tunnel.CodeBadMAC {
		t.Errorf("changed: %v", third.Err())
	}
	if got := strings.Join(up.requests(), ","); got != "HEAD /once,HEAD /other,HEAD /third" {
		t.Errorf("the upstream saw %s", got)
	}
}

// message finds a length-prefixed message in what was written.
func (p *tap) message(t testing.TB, containing string) []byte {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.all.Bytes()
	at := bytes.Index(all, []byte(containing))
	for start := at; start >= 4; start-- {
		if all[start] != '{' {
			continue
		}
		n := int(binary.BigEndian.Uint32(all[start-4:]))
		if start+n <= len(all) && n > at-start && all[start+n-1] == '}' {
			return append([]byte(nil), all[start-4:start+n]...)
		}
	}
	t.Fatal("the header was not found on the wire")
	return nil
}

func TestDotSegmentsDoNotLeaveTheUpstreamsBase(t *testing.T) {
	up := newUpstream(t)
	s := startHostileRelay(t).run("  - {name: web, kind: http, upstream: \"" + up.URL + "/app\", opaque: true}\n")
	for _, target := range []string{"/../secret", "/x/../../secret", "/%2e%2e/secret", "/..%2fsecret", "/.%2e/secret", "/..\\secret"} {
		_, reply := send(t, s, tunnel.Header{Resource: "web", Kind: "http", Action: "connect", Method: "GET", Path: target}, httpRequest("GET", target, ""))
		if reply.OK {
			t.Errorf("%s passed", target)
		}
	}
	if _, reply := send(t, s, tunnel.Header{Resource: "web", Kind: "http", Action: "connect", Method: "GET", Path: "/ok?x=1"}, httpRequest("GET", "/ok?x=1", "")); !reply.OK {
		t.Errorf("a plain path: %+v", reply)
	}
	for _, got := range up.requests() {
		if got != "GET /app/ok?x=1" {
			t.Errorf("the upstream saw %s", got)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	up := newUpstream(t)
	s := startHostileRelay(t).run("  - {name: web, kind: http, upstream: \"" + up.URL + "\", opaque: true}\n")
	send(t, s, tunnel.Header{Resource: "web", Kind: "http", Action: "connect", Method: "GET", Path: "/redirect"}, httpRequest("GET", "/redirect", ""))
	if got := up.requests(); len(got) != 1 || got[0] != "GET /redirect" {
		t.Errorf("the upstream saw %q", got)
	}
}

func TestAddressesThatAreNoUpstreamAreNeverDialled(t *testing.T) {
	for _, address := range []string{
		"169.254.169.254:80", "[fe80::1%25lo]:80", "224.0.0.1:80", "0.0.0.0:80", "[::]:80", "[::ffff:169.254.169.254]:80", "[ff02::1]:80",
		"[64:ff9b::169.254.169.254]:80", "[2002:a9fe:a9fe::1]:80", "[::169.254.169.254]:80", "[fd00:ec2::254]:80", "100.100.100.200:80", "192.0.0.192:80",
		"168.63.129.16:80", "255.255.255.255:80",
	} {
		conn, err := dialUpstream(within(t), "tcp", strings.Replace(address, "%25", "%", 1))
		if err == nil {
			conn.Close()
			t.Errorf("%s was dialled", address)
			continue
		}
		if !strings.Contains(err.Error(), errForbiddenAddress.Error()) {
			t.Errorf("%s: %v", address, err)
		}
	}
	s := startHostileRelay(t).run("  - {name: web, kind: http, upstream: \"http://169.254.169.254\", opaque: true}\n  - {name: db, kind: tcp, upstream: \"169.254.169.254:80\", opaque: true}\n")
	for _, h := range []tunnel.Header{{Resource: "web", Kind: "http", Action: "connect", Method: "GET", Path: "/"}, {Resource: "db", Kind: "tcp", Action: "connect"}} {
		if _, reply := send(t, s, h, httpRequest("GET", "/", "")); reply.OK || reply.Code != tunnel.CodeUpstreamUnreachable.String() {
			t.Errorf("%s: %+v", h.Resource, reply)
		}
	}
}

func TestRelayWithAnotherKeyIsRefused(t *testing.T) {
	r := startHostileRelay(t)
	file := r.agentConfig("  - {name: web, kind: http, upstream: \"http://127.0.0.1:9\", opaque: true}\n")
	r.key = newKey(t) // set up anew, or in between
	found := false
	for _, one := range Check(within(t), file).Stages {
		found = found || one.Stage == "session" && one.Verdict == "fail" && one.Code == "relay_untrusted" && strings.Contains(one.Found, "another key")
	}
	if !found {
		t.Error("check did not find the foreign key")
	}
	select {
	case <-r.sessions:
		t.Error("a session began")
	default:
	}
}

func TestAG13UpstreamSeesItsOwnHostAndTheAgentsKey(t *testing.T) {
	up := newUpstream(t)
	r := startHostileRelay(t)
	keyFile := filepath.Join(t.TempDir(), "upstream.key")
	must(t, os.WriteFile(keyFile, []byte("upstream-secret\n"), 0o600))
	s := r.run("  - {name: phi3, kind: model, upstream: \"" + up.URL + "\", api_key_file: \"" + keyFile + "\"}\n")
	st, reply := send(t, s, chatHeader(), httpRequest("POST", "/v1/chat/completions", chat("phi3"), "Authorization: Bearer stolen", "Origin: https://evil", "Referer: https://evil/x", "X-Iap-Principal: corp/alice"))
	if !reply.OK {
		t.Fatalf("%+v", reply)
	}
	response, err := http.ReadResponse(st.Reader(), nil)
	must(t, err)
	var b bytes.Buffer
	_, err = b.ReadFrom(response.Body)
	must(t, err)
	if want := strings.TrimPrefix(up.URL, "http://") + "|"; !strings.HasPrefix(b.String(), want) || strings.Join(up.auth, ",") != "Bearer upstream-secret" {
		t.Errorf("the upstream saw %s and %q", b.String(), up.auth)
	}
	if strings.Contains(b.String(), "upstream-secret") {
		t.Errorf("the upstream's key came back: %s", b.String())
	}
	if strings.Contains(b.String(), "evil") {
		t.Errorf("a model server saw an Origin: %s", b.String())
	}
}

func TestEndlessHeadOfARelayIsCut(t *testing.T) {
	up := newUpstream(t)
	s := startHostileRelay(t).run("  - {name: web, kind: http, upstream: \"" + up.URL + "\", opaque: true}\n")
	st, err := s.Open(within(t), tunnel.Header{Resource: "web", Kind: "http", Action: "connect", Method: "GET", Path: "/"}, []byte("GET / HTTP/1.1\r\n"))
	must(t, err)
	stop := context.AfterFunc(within(t), func() { st.Abort(tunnel.CodeTimeout) })
	defer stop()
	line := []byte("X-Fill: " + strings.Repeat("y", 16<<10) + "\r\n")
	n := 0
	for n < 64<<20 {
		if _, err = st.Write(line); err != nil {
			break
		}
		n += len(line)
	}
	st.Abort(tunnel.CodeCanceled)
	if err == nil || n > 16<<20 {
		t.Errorf("the agent took %d bytes of one head, %v", n, err)
	}
}
