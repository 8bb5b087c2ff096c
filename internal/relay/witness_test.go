package relay

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"iap/internal/agent"
	"iap/internal/audit"
	"iap/internal/audit/checkpoint"
	"iap/internal/audit/verify"
)

// TestAgentsWitnessTheAuditLog has an agent keep what the relay signs; then somebody restores an old copy of the log
// under the relay, whose key signs it again: the agent refuses, keeps what it holds, and verify tells by it.
func TestAgentsWitnessTheAuditLog(t *testing.T) {
	s := newSystem(t, allowAll)
	a := s.startAgent(served{"db", "tcp", echo(t)})
	id := a.id
	held := func() string {
		logs, err := agent.Witnessing(a.file)
		if err != nil || len(logs) != 1 {
			return ""
		}
		return logs[0].Checkpoint
	}
	eventually(t, "the agent holds a checkpoint", func() bool { return held() != "" })
	first := held()
	must(t, a.stop())
	must(t, s.end())
	old := filepath.Join(s.dir, "old-audit")
	must(t, exec.Command("cp", "-r", s.cfg.Audit.Dir, old).Run())

	s.start()
	var later checkpoint.Signed
	eventually(t, "what is written after the restart is signed", func() bool {
		s.relay.audit.SignSoon()
		later, _, _ = s.relay.audit.Checkpoint()
		return later.Size > closed(t, old)
	})
	a = s.runAgent(a.file)
	eventually(t, "the agent holds a later one, which extends it", func() bool {
		now, err := checkpoint.Parse([]byte(held()))
		return err == nil && held() != first && now.Size >= later.Size
	})
	must(t, a.stop())
	must(t, s.end())
	witness := verify.Note{Name: "agent", Data: []byte(held())}
	anchors := []checkpoint.Anchor{checkpoint.AnchorOf(s.relay.ring.Public())}
	report, err := verify.Run(context.Background(), verify.Options{Dir: s.cfg.Audit.Dir, Anchors: anchors, Witnesses: []verify.Note{witness}})
	must(t, err)
	if !report.OK || report.Tail != 0 || report.Witnesses[0].Status != verify.Holds || !strings.HasPrefix(report.Origin, s.cfg.Name+"/audit/") {
		t.Fatalf("%+v", report)
	}

	must(t, os.RemoveAll(s.cfg.Audit.Dir))
	must(t, exec.Command("cp", "-r", old, s.cfg.Audit.Dir).Run())
	s.start()
	a = s.runAgent(a.file)
	s.awaitEvent("the witness refuses", func(e audit.Event) bool { return e.Reason == "witness_refused" && e.Agent == id })
	if held() != string(witness.Data) {
		t.Errorf("the agent holds %s", held())
	}
	must(t, a.stop())
	must(t, s.end())
	report, err = verify.Run(context.Background(), verify.Options{Dir: s.cfg.Audit.Dir, Anchors: anchors, Witnesses: []verify.Note{witness}})
	must(t, err)
	if report.OK || report.Witnesses[0].Status != verify.Refuses {
		t.Errorf("%+v", report)
	}
}

// closed is how many lines a log had that was closed.
func closed(t *testing.T, dir string) int64 {
	t.Helper()
	report, err := verify.Run(context.Background(), verify.Options{Dir: dir})
	must(t, err)
	return report.Proven.Lines
}
