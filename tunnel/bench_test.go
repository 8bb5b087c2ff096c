package tunnel

import (
	"context"
	"io"
	"sync"
	"testing"
)

// BenchmarkToken is one token there and one back on an open stream.
func BenchmarkToken(b *testing.B) {
	client, server := pair(b)
	serve(b, server, echo)
	st, err := client.Open(context.Background(), Header{}, nil)
	must(b, err)
	token := make([]byte, 120)
	b.ReportAllocs()
	for b.Loop() {
		_, err := st.Write(token)
		must(b, err)
		_, err = io.ReadFull(st, token)
		must(b, err)
	}
	st.Abort(CodeCanceled)
}

// BenchmarkTokens is the same on 64 streams at once.
func BenchmarkTokens(b *testing.B) {
	client, server := pair(b)
	serve(b, server, echo)
	b.ReportAllocs()
	var all sync.WaitGroup
	for range 64 {
		st, err := client.Open(context.Background(), Header{}, nil)
		must(b, err)
		all.Go(func() {
			token := make([]byte, 120)
			for range b.N/64 + 1 {
				if _, err := st.Write(token); err != nil {
					b.Error(err)
				}
				if _, err := io.ReadFull(st, token); err != nil {
					b.Error(err)
				}
			}
			st.Abort(CodeCanceled)
		})
	}
	all.Wait()
}

// BenchmarkRequest opens a stream, sends a request behind its header, reads the answer to its end.
func BenchmarkRequest(b *testing.B) {
	client, server := pair(b)
	serve(b, server, echo)
	request, answer := make([]byte, 300), make([]byte, 512)
	h := Header{Resource: "phi3", Kind: "model", Request: "0123456789abcdef"}
	b.ReportAllocs()
	for b.Loop() {
		st, err := client.Open(context.Background(), h, request)
		must(b, err)
		must(b, st.CloseWrite())
		for err == nil {
			_, err = st.Read(answer)
		}
		if err != io.EOF {
			b.Fatal(err)
		}
	}
}

// BenchmarkBulk is one stream of a bulk session, one way.
func BenchmarkBulk(b *testing.B) {
	r := startRelay(b, nil)
	cfg := r.clientConfig(b, RoleUser)
	cfg.Class = Bulk
	client, server := r.connect(b, cfg)
	serve(b, server, func(_ context.Context, st *Stream, _ Header) {
		io.Copy(io.Discard, st)
		st.Close()
	})
	st, err := client.Open(context.Background(), Header{}, nil)
	must(b, err)
	block := make([]byte, 1<<20)
	b.SetBytes(int64(len(block)))
	b.ReportAllocs()
	for b.Loop() {
		_, err := st.Write(block)
		must(b, err)
	}
	st.CloseWrite()
}
