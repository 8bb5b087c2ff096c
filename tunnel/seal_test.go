package tunnel

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func fullHeader() Header {
	return Header{
		Service: "a", Resource: "b", Kind: "c", Request: "d", Session: "e", Principal: "f", Action: "g", Model: "h",
		Method: "i", Path: "j", Grant: "k", Priority: 3, TimeoutMS: 4,
		Local: &Local{AllowOrigins: []string{"l"}, AllowHosts: []string{"m"}, KeyHash: []byte("n"), Listen: "o"},
	}
}

// Every field that a header gets must be under the seal.
func TestEveryHeaderFieldIsSealed(t *testing.T) {
	plain := appendCanonical(nil, &Header{}, roleRelay, 3)
	full := reflect.ValueOf(fullHeader())
	for i := range full.NumField() {
		name := full.Type().Field(i).Name
		if name == "MAC" {
			continue
		}
		var h Header
		field := reflect.ValueOf(&h).Elem().Field(i)
		if name == "Seq" {
			field.SetUint(9)
		} else {
			field.Set(full.Field(i))
		}
		if field.IsZero() {
			t.Fatalf("fullHeader leaves out %s", name)
		}
		if bytes.Equal(plain, appendCanonical(nil, &h, roleRelay, 3)) {
			t.Errorf("%s is not sealed", name)
		}
	}
	local := reflect.ValueOf(*fullHeader().Local)
	for i := range local.NumField() {
		h := Header{Local: &Local{}}
		empty := appendCanonical(nil, &h, roleRelay, 3)
		reflect.ValueOf(h.Local).Elem().Field(i).Set(local.Field(i))
		if bytes.Equal(empty, appendCanonical(nil, &h, roleRelay, 3)) {
			t.Errorf("Local.%s is not sealed", local.Type().Field(i).Name)
		}
	}
}

func TestSealHoldsInItsPlaceOnly(t *testing.T) {
	key := bytes.Repeat([]byte("k"), 32)
	relay, agent := newSeal(key, roleRelay, RoleAgent), newSeal(key, RoleAgent, roleRelay)
	h := fullHeader()
	relay.sign(&h, 3)
	for name, c := range map[string]struct {
		by     *seal
		stream uint32
		change func(*Header)
	}{
		"another stream":    {agent, 5, func(*Header) {}},
		"back to the relay": {relay, 3, func(*Header) {}},
		"another key":       {newSeal(make([]byte, 32), RoleAgent, roleRelay), 3, func(*Header) {}},
		"another model":     {agent, 3, func(h *Header) { h.Model = "big" }},
		"another number":    {agent, 3, func(h *Header) { h.Seq++ }},
		"no seal":           {agent, 3, func(h *Header) { h.MAC = nil }},
		"half a seal":       {agent, 3, func(h *Header) { h.MAC = h.MAC[:16] }},
	} {
		t.Run(name, func(t *testing.T) {
			changed := h
			c.change(&changed)
			if code := c.by.verify(&changed, c.stream, 0); code != CodeBadMAC {
				t.Fatal(code)
			}
		})
	}
	if code := agent.verify(&h, 3, 0); code != CodeNone {
		t.Fatal(code)
	}
	if code := agent.verify(&h, 3, 0); code != CodeReplayed {
		t.Fatalf("the second time: %v", code)
	}
	next := fullHeader()
	relay.sign(&next, 3)
	if code := agent.verify(&next, 3, next.Seq+1); code != CodeReplayed {
		t.Fatalf("behind its stream: %v", code)
	}
}

func TestReplayWindowAdmitsEachNumberOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var window replay
		seen := map[uint64]bool{}
		var newest uint64
		for _, seq := range rapid.SliceOf(rapid.Uint64Range(0, 4*replayWindow)).Draw(t, "numbers") {
			want := seq != 0 && !seen[seq] && seq+replayWindow > newest
			if got := window.admit(seq); got != want {
				t.Fatalf("number %d behind %d: %v", seq, newest, got)
			}
			if want {
				seen[seq] = true
				newest = max(newest, seq)
			}
		}
	})
}

func TestWarmAgentStreamCarriesRequestAfterRequest(t *testing.T) {
	agent, relay := agentPair(t)
	serve(t, agent, func(ctx context.Context, st *Stream, h Header) {
		for err := error(nil); err == nil; h, err = st.ReadHeader(ctx) {
			body := make([]byte, 4)
			if _, err := io.ReadFull(st.Reader(), body); err != nil {
				return
			}
			if st.WriteReply(Reply{OK: true, Message: h.Request}, body) != nil {
				return
			}
		}
		st.Close()
	})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := talk(relay); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	waitUntilIdle(t, relay)
}

func talk(relay *Session) error {
	ctx := context.Background()
	st, err := relay.Open(ctx, Header{Request: "r0"}, []byte("body"))
	if err != nil {
		return err
	}
	for i := range 20 {
		if i > 0 {
			if err := st.WriteHeader(Header{Request: "r"}, []byte("body")); err != nil {
				return err
			}
		}
		reply, err := st.ReadReply(ctx)
		if err != nil || !reply.OK {
			return errors.Join(err, errors.New("no reply"))
		}
		if _, err := io.ReadFull(st, make([]byte, 4)); err != nil {
			return err
		}
	}
	if err := st.CloseWrite(); err != nil {
		return err
	}
	_, err = io.ReadAll(st)
	return err
}

func TestTamperedHeaderNeverReachesTheAgent(t *testing.T) {
	agent, relay := agentPair(t)
	serve(t, agent, func(context.Context, *Stream, Header) { t.Error("a handler ran") })
	h := Header{Principal: "corp/alice"}
	relay.opens <- struct{}{}
	st, err := relay.openMux()
	must(t, err)
	relay.seal.sign(&h, st.id)
	h.Principal = "corp/root"
	must(t, st.writeMessage(h, nil))
	_, err = st.Read(make([]byte, 1))
	wantCode(t, err, CodeBadMAC)
}

func TestReplayedHeaderIsRefused(t *testing.T) {
	agent, relay := agentPair(t)
	again := make(chan error, 1)
	serve(t, agent, func(ctx context.Context, st *Stream, _ Header) {
		_, err := st.ReadHeader(ctx)
		again <- err
	})
	h := Header{Request: "once"}
	relay.opens <- struct{}{}
	st, err := relay.openMux()
	must(t, err)
	relay.seal.sign(&h, st.id)
	must(t, st.writeMessage(h, nil))
	must(t, st.writeMessage(h, nil))
	wantCode(t, wait(t, again, "the second header"), CodeReplayed)
	_, err = st.Read(make([]byte, 1))
	wantCode(t, err, CodeReplayed)
}

func TestWarmStreamEndsCleanlyBetweenRequests(t *testing.T) {
	agent, relay := agentPair(t)
	next := make(chan error, 1)
	serve(t, agent, func(ctx context.Context, st *Stream, _ Header) {
		_, err := st.ReadHeader(ctx)
		next <- err
	})
	st, err := relay.Open(context.Background(), Header{}, nil)
	must(t, err)
	must(t, st.CloseWrite())
	if err := wait(t, next, "the next header"); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

func TestReadHeaderEndsWithItsContext(t *testing.T) {
	client, server := pair(t)
	_, b := streams(t, client, server)()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { _, err := b.ReadHeader(ctx); done <- err }()
	cancel()
	if err := wait(t, done, "the end of the wait"); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func FuzzReadHeader(f *testing.F) {
	b, _ := appendMessage(nil, fullHeader(), headerBytes)
	f.Add(b)
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Header
		if _, err := readMessage(bytes.NewReader(b), &h, headerBytes); err != nil {
			return
		}
		var peeked Header
		if err := peekMessage(bufio.NewReader(bytes.NewReader(b)), &peeked, headerBytes); err != nil {
			t.Fatalf("read but not peeked: %v", err)
		}
		again, err := appendMessage(nil, h, 4*headerBytes)
		if err != nil {
			t.Fatalf("read but cannot write: %v", err)
		}
		var second Header
		if _, err := readMessage(bytes.NewReader(again), &second, 4*headerBytes); err != nil {
			t.Fatal(err)
		}
		one, two := appendCanonical(nil, &h, roleRelay, 1), appendCanonical(nil, &second, roleRelay, 1)
		if !bytes.Equal(one, two) {
			t.Fatal("two spellings, two seals")
		}
	})
}

func FuzzReadControlMessage(f *testing.F) {
	b, _ := appendMessage(nil, controlMessage{Type: msgAnnounce, Resources: []Announcement{{Resource: "phi3"}}}, controlBytes)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var m controlMessage
		n, err := readMessage(bytes.NewReader(b), &m, controlBytes)
		if err == nil && n != lengthBytes+int(binary.BigEndian.Uint32(b)) {
			t.Fatalf("read %d bytes", n)
		}
	})
}
