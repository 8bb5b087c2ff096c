package relay

import (
	"context"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"iap/internal/admin"
	"iap/internal/relay/settings"
	"iap/internal/state/pgtest"
	"iap/tunnel"
)

// benchGrants hold every request to two limits, so that each needs leases.
const benchLimits = `[{tokens: 900000000/1h, requests: 90000000/1h, concurrent: 256}]`

// BenchmarkRelays has 32 clients chat under a budget, through one relay over SQLite or PostgreSQL, and through two.
func BenchmarkRelays(b *testing.B) {
	for _, c := range []struct {
		name     string
		relays   int
		postgres bool
	}{{"one over SQLite", 1, false}, {"one over PostgreSQL", 1, true}, {"two over PostgreSQL", 2, true}} {
		b.Run(c.name, func(b *testing.B) {
			durable := benchServer(b)
			url := "sqlite:" + filepath.Join(b.TempDir(), "state.db")
			if c.postgres {
				url = durable.URL(b)
			}
			p := benchPair(b, url, c.relays)
			m := newModelServer(b, counted(20))
			p.startAgent(served{"phi3", "model", m.URL})
			var clients []*http.Client
			for i := range 32 {
				s := p.one
				if c.relays > 1 && i%2 == 1 {
					s = p.two
				}
				clients = append(clients, client(b, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"}))
			}
			var next atomic.Int64
			b.SetParallelism(16) // of GOMAXPROCS
			commits := func() int {
				if !c.postgres {
					return 0
				}
				return durable.Count(b, url, "SELECT count(*) FROM iap.writes")
			}
			before := commits()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				mine := clients[int(next.Add(1))%len(clients)]
				for pb.Next() {
					r, err := postChat(mine, chatBody("phi3", false))
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					r.Body.Close()
					if r.StatusCode != http.StatusOK {
						b.Errorf("status %s", r.Status)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
			b.ReportMetric(float64(commits()-before)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}

// benchServer syncs each commit, as in production. It outlives the relays of the benchmark.
func benchServer(b *testing.B) *pgtest.Server {
	s := &pgtest.Server{Durable: true}
	b.Cleanup(func() { must(b, s.Close()) })
	return s
}

// benchPair is newPair over any state, of one relay or two.
func benchPair(b *testing.B, url string, relays int) *pair {
	p := &pair{url: url}
	p.one = prepareSystem(b, grantsWith(benchLimits), func(c *settings.Config) { c.State, c.Instance = url, "one" })
	p.one.start()
	p.two = p.one
	if relays > 1 {
		p.two = p.one.beside("two", url)
		p.two.start()
		p.two.reach()
	}
	p.one.reach()
	return p
}

// BenchmarkRevocationAtTheOtherRelay tells how long a principal's answer at one relay goes on after its revocation at another.
func BenchmarkRevocationAtTheOtherRelay(b *testing.B) {
	durable := benchServer(b)
	p := benchPair(b, durable.URL(b), 2)
	chat := newSlowChat()
	p.startAgent(served{"phi3", "model", newModelServer(b, chat.serve).URL})
	var took []time.Duration
	for b.Loop() {
		r, err := postChat(client(b, p.two.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"}), chatBody("phi3", true))
		must(b, err)
		await(b, chat.begun, "the answer begins")
		began := time.Now()
		_, err = p.one.admin.RevokePrincipal(context.Background(), "corp/alice", "")
		must(b, err)
		_, _ = io.Copy(io.Discard, r.Body)
		took = append(took, time.Since(began))
		r.Body.Close()
		await(b, chat.ended, "the model server is told")
		must(b, p.one.admin.RestorePrincipal(context.Background(), "corp/alice", ""))
		eventually(b, "it is restored", func() bool { return !p.two.relay.refused.has(keyPrincipal + "corp/alice") })
	}
	slices.Sort(took)
	for percent, name := range map[int]string{50: "p50-ms", 99: "p99-ms", 100: "max-ms"} {
		b.ReportMetric(float64(took[(len(took)-1)*percent/100].Microseconds())/1000, name)
	}
}

// BenchmarkQuestionToTheOtherRelay lists the sessions of both.
func BenchmarkQuestionToTheOtherRelay(b *testing.B) {
	durable := benchServer(b)
	p := benchPair(b, durable.URL(b), 2)
	for _, s := range []*system{p.one, p.two} {
		must(b, s.relay.cluster.Beat(context.Background()))
	}
	for b.Loop() {
		list, err := p.one.admin.Sessions(context.Background(), admin.SessionQuestion{})
		if err != nil || len(list.Silent) > 0 {
			b.Fatal(list.Silent, err)
		}
	}
}
