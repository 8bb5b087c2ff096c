package audit

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// killChild is the argument that makes the test binary a relay that records until it is killed.
const killChild = "record-until-killed"

// killed is the log of the relay that is killed: each of its lives has the same key.
func killed(dir string) Options {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	return Options{
		Dir: dir, SegmentBytes: 16 << 10, ReserveBytes: -1, Origin: "relay.example.com/audit/main",
		Keys: func() (ed25519.PrivateKey, [][]byte, error) { return key, nil, nil },
	}
}

// recordUntilKilled records decisions and prints the request of each once it is acknowledged, ending every other one.
func recordUntilKilled(dir string) {
	l, err := Open(killed(dir))
	if err != nil {
		fmt.Println("error", err)
		return
	}
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				request := fmt.Sprintf("%d/%d/%d", os.Getpid(), w, i)
				if err := l.Record(context.Background(), allow(request)); err != nil {
					fmt.Println("error", err)
				}
				fmt.Println(request) // one write: a line is printed wholly or not at all
				if i%2 == 0 {
					l.Record(context.Background(), outcome(request))
				}
			}
		}()
	}
	select {}
}

func TestAcknowledgedRecordsSurviveKill9(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	acknowledged := map[string]bool{}
	for round := range 10 {
		killAfter(t, dir, 50+300*round, acknowledged)
	}
	l := openTest(t, killed(dir))
	l.mu.Lock()
	written := int64(l.seq)
	l.mu.Unlock()
	for caughtUp := false; !caughtUp; { // the killed ones had signed less than they had written
		c, ok, news := l.Checkpoint()
		if caughtUp = ok && c.Size >= written; !caughtUp {
			<-news
		}
	}
	l.Close()
	if err := l.Proving(); err != nil {
		t.Error(err)
	}
	wantTree(t, dir)
	events := readAll(t, dir)
	for _, e := range ofKind(events, KindDecision) {
		delete(acknowledged, e.Request)
	}
	if len(acknowledged) != 0 {
		t.Errorf("%d acknowledged decisions are not in the log", len(acknowledged))
	}
	wantOneOutcomeEach(t, events)
}

// killAfter runs a child and kills it once it has acknowledged n decisions.
func killAfter(t *testing.T, dir string, n int, acknowledged map[string]bool) {
	t.Helper()
	child := exec.Command(os.Args[0], killChild, dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for i := 0; lines.Scan(); i++ {
		if text := lines.Text(); strings.HasPrefix(text, "error") {
			t.Error(text)
		} else {
			acknowledged[text] = true
		}
		if i == n {
			child.Process.Kill() // what it had printed by then is still read
		}
	}
	child.Wait()
}
