package agent

import (
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/dev"
)

// joinServer answers joins as answer says, with the relay's real signature unless answer spoils it.
type joinServer struct {
	addr, ca string
	key      ed25519.PrivateKey
	hits     atomic.Int64
}

func startJoinServer(t testing.TB, answer func(q admin.JoinRequest, good *admin.JoinReply)) *joinServer {
	t.Helper()
	files, err := dev.Certificates(t.TempDir(), "localhost", "127.0.0.1")
	must(t, err)
	cert, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	must(t, err)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	must(t, err)
	s := &joinServer{addr: l.Addr().String(), ca: files.CA, key: newKey(t)}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.hits.Add(1)
		var q admin.JoinRequest
		if json.NewDecoder(r.Body).Decode(&q) != nil {
			http.Error(w, "x", http.StatusBadRequest)
			return
		}
		public := s.key.Public().(ed25519.PublicKey)
		reply := admin.JoinReply{AgentID: "agent-1", RelayKey: public, Resources: []admin.JoinResource{{Name: "web", Kind: "http"}}}
		reply.Signature = ed25519.Sign(s.key, auth.JoinReplyBytes(s.addr, q.TokenID, reply.AgentID, q.PublicKey, public, q.Nonce))
		answer(q, &reply)
		admin.WriteJSON(w, http.StatusOK, reply)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return s
}

func (s *joinServer) token() auth.JoinToken {
	return auth.JoinToken{
		Relay: s.addr, ID: "join-1", Secret: []byte("0123456789abcdef"), RelayKeyHash: auth.KeyHash(s.key.Public().(ed25519.PublicKey)),
		Expires: time.Now().Add(time.Hour), Resources: []auth.JoinResource{{Name: "web", Kind: "http"}},
	}
}

func TestJoinWritesAConfigurationThatLoads(t *testing.T) {
	s := startJoinServer(t, func(admin.JoinRequest, *admin.JoinReply) {})
	for _, upstreams := range []map[string]string{nil, {"web": "http://127.0.0.1:9999/base path"}, {"web": "http://127.0.0.1:8080"}} {
		file := filepath.Join(t.TempDir(), "sub", "agent.yaml")
		joined, err := Join(within(t), JoinOptions{Token: s.token().Encode(), Config: file, CAFile: s.ca, Upstreams: upstreams})
		must(t, err)
		cfg, err := LoadConfig(file)
		if err != nil {
			t.Errorf("%v: %v", upstreams, err)
			continue
		}
		if cfg.AgentID != "agent-1" || cfg.Relay != s.addr || len(joined.Missing) != 1-len(upstreams) {
			t.Errorf("%+v %+v", cfg, joined)
		}
		if _, err := New(cfg, nil); err != nil {
			t.Error(err)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
}

func TestJoinBelievesOnlyTheRelayThatMadeTheToken(t *testing.T) {
	for name, spoil := range map[string]func(admin.JoinRequest, *admin.JoinReply){
		"no signature": func(_ admin.JoinRequest, r *admin.JoinReply) { r.Signature = nil },
		"changed id":   func(_ admin.JoinRequest, r *admin.JoinReply) { r.AgentID = "agent-2" },
		"short key":    func(_ admin.JoinRequest, r *admin.JoinReply) { r.RelayKey = r.RelayKey[:31] },
		"no key":       func(_ admin.JoinRequest, r *admin.JoinReply) { r.RelayKey = nil },
		"another key":  func(q admin.JoinRequest, r *admin.JoinReply) { resign(q, r, newKey(t)) },
		"another resource": func(_ admin.JoinRequest, r *admin.JoinReply) {
			r.Resources = []admin.JoinResource{{Name: "db", Kind: "tcp"}}
		},
		"one resource more": func(_ admin.JoinRequest, r *admin.JoinReply) {
			r.Resources = append(r.Resources, admin.JoinResource{Name: "db", Kind: "tcp"})
		},
		"another kind": func(_ admin.JoinRequest, r *admin.JoinReply) { r.Resources[0].Kind = "tcp" },
		"YAML in a resource": func(_ admin.JoinRequest, r *admin.JoinReply) {
			r.Resources[0].Name = "web\n    opaque: true\n    upstream: \"http://10.0.0.1\" #"
		},
	} {
		s := startJoinServer(t, spoil)
		dir := filepath.Join(t.TempDir(), "a")
		_, err := Join(within(t), JoinOptions{Token: s.token().Encode(), Config: filepath.Join(dir, "agent.yaml"), CAFile: s.ca})
		if err == nil {
			text, _ := os.ReadFile(filepath.Join(dir, "agent.yaml"))
			t.Errorf("%s was believed:\n%s", name, text)
			continue
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s: left behind %v", name, left)
		}
	}
}

func resign(q admin.JoinRequest, r *admin.JoinReply, key ed25519.PrivateKey) {
	public := key.Public().(ed25519.PublicKey)
	r.RelayKey = public
	r.Signature = ed25519.Sign(key, auth.JoinReplyBytes("", q.TokenID, r.AgentID, q.PublicKey, public, q.Nonce))
}

func TestHopelessJoinSpendsNoToken(t *testing.T) {
	s := startJoinServer(t, func(admin.JoinRequest, *admin.JoinReply) {})
	expired := s.token()
	expired.Expires = time.Now().Add(-time.Minute)
	for name, o := range map[string]JoinOptions{
		"expired":          {Token: expired.Encode()},
		"damaged":          {Token: s.token().Encode()[:40]},
		"empty":            {Token: ""},
		"unknown upstream": {Token: s.token().Encode(), Upstreams: map[string]string{"webb": "http://127.0.0.1"}},
		"no upstream":      {Token: s.token().Encode(), Upstreams: map[string]string{"web": "not a url"}},
	} {
		dir := filepath.Join(t.TempDir(), "a")
		o.Config, o.CAFile = filepath.Join(dir, "agent.yaml"), s.ca
		_, err := Join(within(t), o)
		if err == nil {
			t.Errorf("%s: joined", name)
		} else if o.Token != "" && strings.Contains(err.Error(), o.Token) {
			t.Errorf("%s: the token is in the error", name)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s: left behind %v", name, left)
		}
	}
	if n := s.hits.Load(); n != 0 {
		t.Errorf("the relay was asked %d times", n)
	}
}

func TestJoinOverAnUntrustedConnectionSendsNothing(t *testing.T) {
	s := startJoinServer(t, func(admin.JoinRequest, *admin.JoinReply) {})
	dir := filepath.Join(t.TempDir(), "a")
	_, err := Join(within(t), JoinOptions{Token: s.token().Encode(), Config: filepath.Join(dir, "agent.yaml")}) // the system's certificates do not know it
	if err == nil || s.hits.Load() != 0 {
		t.Errorf("%v, %d requests", err, s.hits.Load())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	gone := s.token()
	gone.Relay = l.Addr().String()
	if _, err := Join(within(t), JoinOptions{Token: gone.Encode(), Config: filepath.Join(dir, "agent.yaml"), CAFile: s.ca}); err == nil {
		t.Error("joined at nobody")
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind %v", left)
	}
}
