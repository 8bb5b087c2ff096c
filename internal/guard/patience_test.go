package guard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// oneConn is a listener that accepts a single connection.
type oneConn struct {
	conn   chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *oneConn) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

func TestAModelMayThinkForAsLongAsItLikes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		var ended string
		g := &Guard{
			Decide: func(context.Context, Question) Decision { return Decision{Allow: true} },
			Record: func(_ context.Context, e Event) error { ended = e.Ended; return nil },
			NewID:  func() string { return "1" },
			Forward: func(context.Context, *Request) (*Response, error) {
				time.Sleep(20 * time.Minute) // of the bubble's time
				return &Response{Status: 200, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: s}, nil
			},
		}
		client, served := net.Pipe()
		l := &oneConn{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
		l.conn <- served
		server := &http.Server{Handler: g.Handler(Resource{Kind: KindModel, Server: "openai"}, &Caller{})}
		done := make(chan struct{})
		go func() { defer close(done); _ = server.Serve(l) }()
		go func() {
			for range 3 {
				time.Sleep(24 * time.Hour)
				s.pieces <- event(1)
			}
			close(s.pieces)
		}()
		r, err := http.NewRequest("POST", "http://x/v1/chat/completions", strings.NewReader(chatBody))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		go func() { _ = r.Write(client) }()
		response, err := http.ReadResponse(bufio.NewReader(client), r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(response.Body)
		if err != nil || string(got) != strings.Repeat(event(1), 3) || ended != completed {
			t.Errorf("got %q, %v; ended %q", got, err, ended)
		}
		_ = client.Close()
		_ = server.Close()
		<-done
		synctest.Wait()
	})
}

func TestASenderThatStallsIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reason := ""
		g := &Guard{
			Decide: func(context.Context, Question) Decision { return Decision{Allow: true} },
			Record: func(_ context.Context, e Event) error { reason = e.Reason; return nil },
			NewID:  func() string { return "1" },
		}
		client, served := net.Pipe()
		l := &oneConn{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
		l.conn <- served
		server := &http.Server{Handler: g.Handler(Resource{Kind: KindModel, Server: "openai"}, &Caller{})}
		done := make(chan struct{})
		go func() { defer close(done); _ = server.Serve(l) }()
		_, err := io.WriteString(client, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if answer, err := io.ReadAll(client); err != nil || !strings.Contains(string(answer), "body_incomplete") {
			t.Errorf("answered %q, %v", answer, err)
		}
		if waited := time.Since(begun); reason != "body_incomplete" || waited < bodyStall || waited > 2*bodyStall {
			t.Errorf("recorded %q after %v", reason, waited)
		}
		_ = client.Close()
		_ = server.Close()
		<-done
		synctest.Wait()
	})
}

// endlessEvents is an answer that comes as fast as it is taken.
type endlessEvents struct{ closed atomic.Bool }

func (e *endlessEvents) Read(p []byte) (int, error) {
	if e.closed.Load() {
		return 0, errors.New("closed")
	}
	return copy(p, strings.Repeat(event(1), 8)), nil
}

func (e *endlessEvents) Close() error { e.closed.Store(true); return nil }

// A reader that takes nothing, or a byte now and then, would hold its slot at the model server, and what it reserved of
// a budget that others share, for ever.
func TestAReaderThatStallsIsCut(t *testing.T) {
	for name, pause := range map[string]time.Duration{"takes nothing": 0, "trickles": readerStall / 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan Event, 1)
				g := &Guard{
					Decide: func(context.Context, Question) Decision { return Decision{Allow: true} },
					Record: func(_ context.Context, e Event) error {
						if e.Kind == EventOutcome {
							ended <- e
						}
						return nil
					},
					NewID: func() string { return "1" },
					Forward: func(context.Context, *Request) (*Response, error) {
						return &Response{Status: 200, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: &endlessEvents{}}, nil
					},
				}
				client, served := net.Pipe()
				l := &oneConn{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
				l.conn <- served
				server := &http.Server{Handler: g.Handler(Resource{Kind: KindModel, Server: "openai"}, &Caller{})}
				done := make(chan struct{})
				go func() { defer close(done); _ = server.Serve(l) }()
				begun := time.Now()
				_, _ = fmt.Fprintf(client, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(chatBody), chatBody)
				var reading sync.WaitGroup
				if pause > 0 {
					reading.Go(func() {
						for one := make([]byte, 1); ; time.Sleep(pause) {
							if _, err := client.Read(one); err != nil {
								return
							}
						}
					})
				}
				select {
				case e := <-ended:
					if waited := time.Since(begun); e.Ended != "reader_stalled" || waited > 2*readerStall {
						t.Errorf("ended %q after %v", e.Ended, waited)
					}
				case <-time.After(24 * time.Hour):
					t.Error("it runs for ever")
				}
				_ = client.Close()
				_ = server.Close()
				<-done
				reading.Wait()
			})
		})
	}
}
