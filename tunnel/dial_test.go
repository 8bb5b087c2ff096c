package tunnel

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
)

func dialError(t testing.TB, d *Dialer, stage string) *DialError {
	t.Helper()
	conn, err := d.Dial(context.Background())
	if err == nil {
		conn.Close()
		t.Fatal("dialled")
	}
	var dial *DialError
	if !errors.As(err, &dial) || dial.Stage != stage {
		t.Fatalf("got %v, want stage %s", err, stage)
	}
	return dial
}

func TestInterceptingAuthorityIsNamed(t *testing.T) {
	r := startRelay(t, nil)
	_, r.roots = certificates(t, "another authority")
	err := dialError(t, r.dialer(), "tls")
	if !strings.Contains(err.Error(), `"test authority"`) {
		t.Fatal(err)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	cert, roots := certificates(t, "ca")
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS12})
	must(t, err)
	defer ln.Close()
	go func() {
		if c, err := ln.Accept(); err == nil {
			c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	d := &Dialer{Address: ln.Addr().String(), TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	dialError(t, d, "tls")
}

func TestDialErrorsNameTheirStage(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	addr := ln.Addr().String()
	ln.Close()
	dialError(t, &Dialer{Address: addr}, "tcp")
	dialError(t, &Dialer{Address: "https://relay"}, "resolve")
	dialError(t, &Dialer{Address: ""}, "resolve")
	dialError(t, &Dialer{Address: "relay", Proxy: noProxy, NetDial: func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.DNSError{Err: "no such host", Name: "relay", IsNotFound: true}
	}}, "resolve")
}

func noProxy(*url.URL) (*url.URL, error) { return nil, nil }

func TestRelayThatDoesNotUpgradeIsReported(t *testing.T) {
	for status, code := range map[int]Code{
		http.StatusServiceUnavailable: CodeRelayShutdown,
		http.StatusTooManyRequests:    CodeOverloaded,
		http.StatusNotFound:           CodeRefused,
	} {
		cert, roots := certificates(t, "ca")
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
		}))
		server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		server.StartTLS()
		err := dialError(t, &Dialer{Address: server.Listener.Addr().String(), TLS: &tls.Config{RootCAs: roots}}, "upgrade")
		if err.Code != code {
			t.Fatalf("status %d: %v", status, err)
		}
		server.Close()
	}
}

func TestConnectAddressIsDialledExactly(t *testing.T) {
	r := startRelay(t, nil)
	d := r.dialer()
	_, port, _ := net.SplitHostPort(r.addr)
	d.NetDial, d.Proxy = nil, func(*url.URL) (*url.URL, error) { return nil, errors.New("asked for a proxy") }
	d.Address, d.Connect = "localhost", netip.MustParseAddrPort("127.0.0.1:"+port)
	conn, err := d.Dial(context.Background())
	must(t, err)
	conn.Close()
	wait(t, r.errs, "the end of the handshake")
}

func TestUpgradeRefusesOtherRequests(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"path":     func(r *http.Request) { r.URL.Path = "/" },
		"method":   func(r *http.Request) { r.Method = "POST" },
		"protocol": func(r *http.Request) { r.Header.Set("Upgrade", "websocket") },
		"no token": func(r *http.Request) { r.Header.Del("Connection") },
		"http/1.0": func(r *http.Request) { r.ProtoMajor, r.ProtoMinor = 1, 0 },
		"http/2":   func(r *http.Request) { r.ProtoMajor, r.ProtoMinor = 2, 0 },
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", Path, nil)
			r.Header.Set("Connection", "keep-alive, Upgrade")
			r.Header.Set("Upgrade", Protocol)
			if !IsUpgrade(r) {
				t.Fatal("a good request is refused")
			}
			change(r)
			w := httptest.NewRecorder()
			if _, err := Upgrade(w, r); err == nil || w.Code != http.StatusUpgradeRequired {
				t.Fatalf("status %d, %v", w.Code, err)
			}
		})
	}
}

// A testProxy is an HTTP proxy that wants credentials, if it has some.
func testProxy(t testing.TB, want string) *url.URL {
	t.Helper()
	var copies sync.WaitGroup
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		user, password, _ := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth()
		if want != "" && user+":"+password != want {
			w.Header().Set("Proxy-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		_, port, _ := net.SplitHostPort(r.Host)
		up, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		down, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		rw.WriteString("HTTP/1.1 200 Connection established\r\n\r\n")
		rw.Flush()
		copies.Go(func() { io.Copy(up, down); up.Close() })
		copies.Go(func() { io.Copy(down, up); down.Close() })
	}))
	t.Cleanup(func() { server.Close(); copies.Wait() })
	proxy, err := url.Parse(server.URL)
	must(t, err)
	return proxy
}

func TestSessionThroughAProxyWithCredentials(t *testing.T) {
	proxy := testProxy(t, "alice:secret")
	proxy.User = url.UserPassword("alice", "secret")
	r := startRelay(t, nil)
	d := r.dialer()
	d.NetDial = nil
	d.Proxy = func(u *url.URL) (*url.URL, error) {
		if u.Scheme != "https" || u.Host != r.addr {
			t.Errorf("asked for the proxy of %v", u)
		}
		return proxy, nil
	}
	conn, err := d.Dial(context.Background())
	must(t, err)
	client, err := Connect(context.Background(), conn, r.clientConfig(t, RoleUser))
	must(t, err)
	roundTrip(t, client) // with channel binding: the proxy sees TLS only
	end(client)
}

func TestProxyErrorsAreTyped(t *testing.T) {
	via := func(proxy *url.URL) *Dialer {
		return &Dialer{Address: "localhost:1", Proxy: func(*url.URL) (*url.URL, error) { return proxy, nil }}
	}
	if err := dialError(t, via(testProxy(t, "a:b")), "proxy"); err.Code != CodeProxyAuthRequired {
		t.Fatal(err)
	}
	if err := dialError(t, via(testProxy(t, "")), "proxy"); err.Code != CodeProxyRefused {
		t.Fatal(err)
	}
	dialError(t, via(&url.URL{Scheme: "socks5", Host: "localhost:1"}), "proxy")
	dialError(t, via(&url.URL{Scheme: "http", Host: "127.0.0.1:1"}), "proxy")
}

func TestProxyComesFromTheEnvironment(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://proxy.example:3128")
	t.Setenv("NO_PROXY", "inside.example")
	d := &Dialer{}
	for target, want := range map[string]string{"relay.example:443": "proxy.example:3128", "inside.example:443": ""} {
		proxy, err := d.proxyFor(target)
		must(t, err)
		if got := (proxy != nil); got != (want != "") || got && proxy.Host != want {
			t.Fatalf("%s goes by %v", target, proxy)
		}
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel and says nothing
	must(t, err)
	defer ln.Close()
	for _, proxy := range []*url.URL{nil, {Scheme: "http", Host: ln.Addr().String()}} {
		ctx, cancel := context.WithCancel(context.Background())
		d := &Dialer{Address: ln.Addr().String(), Proxy: func(*url.URL) (*url.URL, error) { return proxy, nil }}
		done := make(chan error, 1)
		go func() { _, err := d.Dial(ctx); done <- err }()
		conn, err := ln.Accept()
		must(t, err)
		bufio.NewReader(conn).ReadByte() // it is under way
		cancel()
		if err := wait(t, done, "the end of the dial"); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		conn.Close()
	}
}

func TestAddressesAreSplit(t *testing.T) {
	for address, want := range map[string][2]string{
		"relay.example": {"relay.example", "443"}, "relay.example:8443": {"relay.example", "8443"},
		"[::1]:8443": {"::1", "8443"}, "::1": {"::1", "443"}, "[::1]": {"::1", "443"},
	} {
		host, port, err := splitAddress(address)
		if err != nil || host != want[0] || port != want[1] {
			t.Errorf("%q: %q %q %v", address, host, port, err)
		}
	}
	for _, bad := range []string{"", ":443", "a/b", "user@host", "a:b:c", "host:", "a\r\nb"} {
		if _, _, err := splitAddress(bad); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}
