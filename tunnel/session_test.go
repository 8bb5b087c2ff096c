package tunnel

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestCloseTellsThePeerWhy(t *testing.T) {
	client, server := pair(t)
	a, b := streams(t, client, server)()
	read := make(chan error, 2)
	for _, st := range []*Stream{a, b} {
		go func() { _, err := st.Read(make([]byte, 1)); read <- err }()
	}
	must(t, server.Close(CodeRevoked, "your key was revoked"))
	for range 2 {
		err := wait(t, read, "the read")
		if !errors.Is(err, ErrSessionLost) {
			t.Fatal(err)
		}
		wantCode(t, err, CodeRevoked)
	}
	wait(t, client.Done(), "the client's end")
	var lost *SessionError
	if !errors.As(client.Err(), &lost) || lost.Reason != "your key was revoked" || !lost.Remote {
		t.Fatal(client.Err())
	}
	_, err := client.Open(context.Background(), Header{}, nil)
	wantCode(t, err, CodeRevoked)
}

// stuckConn stops to read at a wish, as a machine that lost its network does.
type stuckConn struct {
	net.Conn
	stop chan struct{}
	done chan struct{}
	once sync.Once
}

func (c *stuckConn) Read(p []byte) (int, error) {
	select {
	case <-c.stop:
		<-c.done
		return 0, io.EOF
	default:
		return c.Conn.Read(p)
	}
}

func (c *stuckConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.Conn.Close()
}

// pipePair is a session over a pipe without any buffer; the client's end can be stuck.
func pipePair(t *testing.T) (client, server *Session, stuck *stuckConn) {
	near, far := net.Pipe()
	stuck = &stuckConn{Conn: near, stop: make(chan struct{}), done: make(chan struct{})}
	accepted := make(chan *Session, 1)
	go func() {
		s, err := Accept(context.Background(), far, ServerConfig{
			Key: makeKey(t), Names: []string{"relay"}, Authenticate: authenticateAnyone, Binding: BindingNonce,
		})
		if err != nil {
			t.Error(err)
		}
		accepted <- s
	}()
	client, err := Connect(context.Background(), stuck, ClientConfig{
		Role: RoleUser, Relay: "relay", Key: makeKey(t),
		Token: func(context.Context) (string, error) { return makeToken("{}"), nil },
	})
	must(t, err)
	server = wait(t, accepted, "the session")
	t.Cleanup(func() { end(client); end(server) })
	return client, server, stuck
}

func TestCloseIsBoundedThoughThePeerReadsNothing(t *testing.T) {
	client, server, stuck := pipePair(t)
	a, err := client.Open(context.Background(), Header{}, nil)
	must(t, err)
	defer a.Abort(CodeCanceled)
	serve(t, server, func(ctx context.Context, st *Stream, _ Header) {
		st.Write(make([]byte, 1<<20))
	})
	close(stuck.stop)
	server.Close(CodeRelayShutdown, "")
	wait(t, server.Done(), "the end")
}

func TestSessionOverAPipeWorks(t *testing.T) {
	client, server, _ := pipePair(t)
	serve(t, server, echo)
	st, err := client.Open(context.Background(), Header{}, []byte("x"))
	must(t, err)
	must(t, st.CloseWrite())
	got, err := io.ReadAll(st)
	must(t, err)
	if string(got) != "x" {
		t.Fatal(got)
	}
}

func TestStreamsBeyondTheCapAreReset(t *testing.T) {
	r := startRelay(t, func(c *ServerConfig) { c.MaxStreams = 2000 })
	client, server := r.connect(t, r.clientConfig(t, RoleUser))
	client.peerCap = 0 // a client that does not keep to the cap
	serve(t, server, func(ctx context.Context, st *Stream, _ Header) { <-ctx.Done() })
	var reset atomic.Int64
	var all sync.WaitGroup
	opened := make(chan *Stream, 2100)
	for range 20 {
		all.Go(func() {
			for range 105 {
				st, err := client.Open(context.Background(), Header{}, nil)
				if err != nil {
					if CodeOf(err) == CodeTooManyStreams {
						reset.Add(1)
						continue
					}
					t.Error(err)
					return
				}
				opened <- st
			}
		})
	}
	all.Wait()
	roundTrip(t, client)
	close(opened)
	for st := range opened {
		if CodeOf(st.Err()) == CodeTooManyStreams {
			reset.Add(1)
		}
		st.Abort(CodeCanceled)
	}
	if n := reset.Load(); n != 100 {
		t.Fatalf("%d streams were reset", n)
	}
	waitUntilIdle(t, server)
	st, err := openUntilAccepted(client)
	must(t, err)
	st.Abort(CodeCanceled)
}

// openUntilAccepted tries while handlers of ended streams still return.
func openUntilAccepted(s *Session) (*Stream, error) {
	for deadline := time.Now().Add(patience); ; {
		st, err := s.Open(context.Background(), Header{}, nil)
		if err == nil {
			s.Refresh(context.Background(), makeToken("{}"))
			if st.Err() == nil {
				return st, nil
			}
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(err, errors.New("no place became free"))
		}
	}
}

func TestClientKeepsToTheRelaysCap(t *testing.T) {
	r := startRelay(t, func(c *ServerConfig) { c.MaxStreams = 3 })
	client, server := r.connect(t, r.clientConfig(t, RoleUser))
	serve(t, server, func(ctx context.Context, st *Stream, _ Header) { <-ctx.Done() })
	for range 3 {
		_, err := client.Open(context.Background(), Header{}, nil)
		must(t, err)
	}
	_, err := client.Open(context.Background(), Header{}, nil)
	wantCode(t, err, CodeTooManyStreams)
}

func TestUsersTakeNoStreams(t *testing.T) {
	_, server := pair(t)
	st, err := server.Open(context.Background(), Header{}, nil)
	if err == nil {
		_, err = st.Read(make([]byte, 1))
	}
	wantCode(t, err, CodeRefused)
}

func TestOpenEndsWithItsContext(t *testing.T) {
	client, _ := pair(t) // the relay does not serve: nothing is acknowledged
	ctx, cancel := context.WithCancel(context.Background())
	client.peerCap = 0
	for len(client.opens) < cap(client.opens) {
		_, err := client.Open(ctx, Header{}, nil)
		must(t, err)
	}
	cancel()
	if _, err := client.Open(ctx, Header{}, nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestGoAwayEndsNothingAndAdmitsNothing(t *testing.T) {
	client, server := pair(t)
	open := streams(t, client, server)
	a, b := open()
	must(t, server.GoAway("restart"))
	wait(t, client.leave, "the news")
	if !client.Draining() || !server.Draining() {
		t.Fatal("one side does not drain")
	}
	_, err := client.Open(context.Background(), Header{}, nil)
	wantCode(t, err, CodeRelayShutdown)
	_, err = a.Write([]byte("going on"))
	must(t, err)
	buf := make([]byte, 8)
	_, err = io.ReadFull(b, buf)
	must(t, err)
	must(t, a.CloseWrite())
	must(t, b.CloseWrite())
	io.ReadAll(a)
	io.ReadAll(b)
	waitUntilIdle(t, server)
}

func TestStreamOpenedAcrossAGoAwayIsRefused(t *testing.T) {
	client, server := pair(t)
	serve(t, server, echo)
	server.table.mu.Lock()
	server.table.draining = true
	server.table.mu.Unlock()
	st, err := client.Open(context.Background(), Header{}, nil)
	if err == nil {
		_, err = st.Read(make([]byte, 1))
	}
	wantCode(t, err, CodeRelayShutdown)
	if !errors.Is(err, ErrNotSent) {
		t.Errorf("not known to be unread: %v", err)
	}
}

// TestOnlyAStreamTurnedAwayIsUnread: whatever the code, what was accepted may have been acted on.
func TestOnlyAStreamTurnedAwayIsUnread(t *testing.T) {
	for _, code := range []Code{CodeRelayShutdown, CodeTooManyStreams, CodeCanceled} {
		client, server := pair(t)
		serve(t, server, func(_ context.Context, st *Stream, _ Header) { st.Abort(code) })
		st, err := client.Open(context.Background(), Header{}, nil)
		if err == nil {
			_, err = st.Read(make([]byte, 1))
		}
		wantCode(t, err, code)
		if errors.Is(err, ErrNotSent) {
			t.Errorf("%v: an accepted stream counts as unread", err)
		}
	}
}

func TestSessionEndsWhenItsTokenDoes(t *testing.T) {
	r := startRelay(t, func(c *ServerConfig) {
		c.Authenticate = func(ctx context.Context, h Hello) (Peer, error) {
			p, err := authenticateAnyone(ctx, h)
			p.Expires = time.Now().Add(-time.Second)
			return p, err
		}
	})
	client, server := r.connect(t, r.clientConfig(t, RoleUser))
	server.control.nudge()
	wait(t, client.Done(), "the client's end")
	wantCode(t, client.Err(), CodeSessionExpired)
}

func TestRefreshMovesTheEnd(t *testing.T) {
	later := time.Now().Add(5 * time.Hour).Truncate(time.Second)
	fresh := makeToken(`{"sub":"alice","fresh":true}`)
	r := startRelay(t, func(c *ServerConfig) {
		c.Refresh = func(_ context.Context, s *Session, token string) (time.Time, error) {
			if token != fresh {
				return time.Time{}, &Refusal{CodeTokenInvalid, "not this one"}
			}
			return later, nil
		}
	})
	client, server := r.connect(t, r.clientConfig(t, RoleUser))
	ctx := context.Background()
	got, err := client.Refresh(ctx, fresh)
	must(t, err)
	if !got.Equal(later) || !server.Expires().Equal(later) || !client.Expires().Equal(later) {
		t.Fatalf("expires %v, %v and %v", got, server.Expires(), client.Expires())
	}
	_, err = client.Refresh(ctx, makeToken(`{"sub":"bob"}`))
	wantCode(t, err, CodeTokenInvalid)
	// a thief of tokens has no key
	client.client.Key = makeKey(t)
	_, err = client.Refresh(ctx, fresh)
	wantCode(t, err, CodePopFailed)
}

func TestUserWithdrawsItsOwnSession(t *testing.T) {
	heard := make(chan Code, 1)
	r := startRelay(t, func(c *ServerConfig) {
		c.OnWithdraw = func(_ *Session, why Code) { heard <- why }
	})
	client, _ := r.connect(t, r.clientConfig(t, RoleUser))
	must(t, client.Withdraw(CodeLoginRequired))
	if why := wait(t, heard, "the withdrawal"); why != CodeLoginRequired {
		t.Errorf("withdrawn for %v", why)
	}
	agent, _ := r.connect(t, r.clientConfig(t, RoleAgent))
	if agent.Withdraw(CodeLoginRequired) == nil {
		t.Error("an agent withdraws a session")
	}
	must(t, agent.control.send(controlMessage{Type: msgWithdraw}))
	wait(t, agent.Done(), "the end")
	wantCode(t, agent.Err(), CodeProtocolError)
}

func TestRefreshProofIsForItsSessionOnly(t *testing.T) {
	hash := make([]byte, 32)
	key := makeKey(t)
	proof := ed25519.Sign(key, refreshTranscript([]byte("one session"), hash))
	if ed25519.Verify(key.Public().(ed25519.PublicKey), refreshTranscript([]byte("another"), hash), proof) {
		t.Fatal("a proof holds twice")
	}
}

func TestAnnouncementsArrive(t *testing.T) {
	seen := make(chan []Announcement, 4)
	r := startRelay(t, func(c *ServerConfig) {
		c.OnAnnounce = func(_ *Session, list []Announcement) error {
			if len(list) > 0 && list[0].Resource == "forbidden" {
				return &Refusal{CodeNotAnnounced, "not in the join token"}
			}
			seen <- list
			return nil
		}
	})
	cfg := r.clientConfig(t, RoleAgent)
	cfg.Announce = []Announcement{{Resource: "phi3", Kind: "model", Healthy: true, Models: []string{"phi3:mini"}}}
	agent, relay := r.connect(t, cfg)
	if got := wait(t, seen, "the announcement"); len(got) != 1 || got[0].Models[0] != "phi3:mini" {
		t.Fatal(got)
	}
	must(t, agent.Announce(context.Background(), nil))
	wait(t, seen, "the second announcement")
	err := agent.Announce(context.Background(), []Announcement{{Resource: "forbidden"}})
	wantCode(t, err, CodeNotAnnounced)
	if len(relay.Announced()) != 0 {
		t.Fatal("a refused announcement counts")
	}
}

func TestUsersAnnounceNothing(t *testing.T) {
	client, _ := pair(t)
	must(t, client.control.send(controlMessage{Type: msgAnnounce}))
	wait(t, client.Done(), "the end")
	wantCode(t, client.Err(), CodeProtocolError)
}

func TestNoticeArrives(t *testing.T) {
	r := startRelay(t, nil)
	cfg := r.clientConfig(t, RoleUser)
	got := make(chan Notice, 1)
	cfg.OnNotice = func(n Notice) { got <- n }
	_, server := r.connect(t, cfg)
	must(t, server.Notify(Notice{Kind: "policy", Text: "hel\x1blo"}))
	if n := wait(t, got, "the notice"); n.Text != "hel lo" {
		t.Fatal(n)
	}
}

func TestProbeFailsWhereNobodyAnswers(t *testing.T) {
	client, server, stuck := pipePair(t)
	must(t, probe(client))
	close(stuck.stop)
	for range 10 { // a read that was under way may still take a message
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		err := server.Probe(ctx)
		cancel()
		if err != nil {
			return
		}
	}
	t.Fatal("a dead peer answers")
}

func TestHandlersEndWithTheirStream(t *testing.T) {
	client, server := pair(t)
	running, ended := make(chan struct{}), make(chan error, 1)
	serve(t, server, func(ctx context.Context, st *Stream, _ Header) {
		close(running)
		<-ctx.Done()
		ended <- context.Cause(ctx)
	})
	st, err := client.Open(context.Background(), Header{}, nil)
	must(t, err)
	wait(t, running, "the handler's start")
	st.Abort(CodeCanceled)
	wantCode(t, wait(t, ended, "the handler's end"), CodeCanceled)
}

func TestServeJoinsItsHandlers(t *testing.T) {
	client, server := pair(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	running, ended := make(chan struct{}), make(chan struct{})
	served := make(chan error, 1)
	go func() {
		served <- server.Serve(ctx, func(ctx context.Context, st *Stream, _ Header) {
			close(running)
			<-ctx.Done()
			close(ended)
		})
	}()
	st, err := client.Open(context.Background(), Header{}, nil)
	must(t, err)
	wait(t, running, "the handler's start")
	cancel(&AbortError{Code: CodeRelayShutdown})
	if err := wait(t, served, "the end of Serve"); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	select {
	case <-ended:
	default:
		t.Fatal("a handler was left running")
	}
	_, err = st.Read(make([]byte, 1))
	wantCode(t, err, CodeRelayShutdown)
}

func TestFI15PanickingHandlerEndsItsStreamOnly(t *testing.T) {
	client, server := pair(t)
	serve(t, server, func(ctx context.Context, st *Stream, h Header) {
		if h.Resource == "bad" {
			panic("hostile input")
		}
		echo(ctx, st, h)
	})
	bad, err := client.Open(context.Background(), Header{Resource: "bad"}, nil)
	must(t, err)
	_, err = bad.Read(make([]byte, 1))
	wantCode(t, err, CodeInternal)
	good, err := client.Open(context.Background(), Header{}, []byte("x"))
	must(t, err)
	must(t, good.CloseWrite())
	_, err = io.ReadAll(good)
	must(t, err)
}

func TestForgottenStreamIsAborted(t *testing.T) {
	client, server := pair(t)
	serve(t, server, func(context.Context, *Stream, Header) {})
	st, err := client.Open(context.Background(), Header{}, nil)
	must(t, err)
	_, err = st.Read(make([]byte, 1))
	wantCode(t, err, CodeCanceled)
}
