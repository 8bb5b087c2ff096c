package relay

import (
	"context"
	"crypto/ed25519"
	"errors"
	"strconv"
	"time"

	"iap/internal/audit"
	"iap/internal/audit/checkpoint"
	"iap/internal/audit/tree"
	"iap/internal/relaykey"
	"iap/tunnel"
)

const (
	// witnessPatience is for an agent's answer. One of an older version gives none, and is not asked again.
	witnessPatience = 10 * time.Second
	// witnessPause is between two checkpoints that one agent is shown: ten thousand agents are a thousand messages a
	// second.
	witnessPause = 10 * time.Second
)

// auditOptions are those of the relay's log. The log bears the relay's name and, since each relay of several has its own,
// the instance's.
func (r *Relay) auditOptions() audit.Options {
	c := r.cfg.Audit
	return audit.Options{
		Dir: c.Dir, Sync: c.Sync, Now: r.now, Logger: r.log,
		SegmentBytes: int64(c.Rotate.Size), SegmentAge: time.Duration(c.Rotate.Age), Retain: time.Duration(c.Retain),
		Origin: r.auditOrigin(), Keys: r.signingKey,
	}
}

func (r *Relay) auditOrigin() string { return r.cfg.Name + "/audit/" + r.instance }

// signingKey is what checkpoints are signed by.
func (r *Relay) signingKey() (ed25519.PrivateKey, [][]byte, error) {
	key, chain := r.ring.Shown()
	return key, chain, nil
}

// showLog shows an agent each new checkpoint of the audit log, with the proof that it extends the one that the agent
// holds: so somebody outside can tell if the log is rewritten later.
func (r *Relay) showLog(ctx context.Context, t *tunnel.Session, agent string) {
	var held checkpoint.Checkpoint
	for {
		latest, ok, news := r.audit.Checkpoint()
		if ok {
			answer, err := r.showCheckpoint(ctx, t, latest, &held)
			if errors.Is(err, tree.ErrNoHashes) {
				r.log.Warn("the checkpoint that an agent holds is older than what the audit log keeps: it stays with that one until its file agent.witness is moved away", "agent", agent, "error", err)
				return
			}
			if err != nil {
				r.log.Debug("the agent does not witness the audit log", "agent", agent, "error", err)
				return
			}
			if answer.Conflict || r.behind(answer.Held) {
				r.witnessRefused(agent, latest, answer)
				return
			}
			if !sleep(ctx, witnessPause) {
				return
			}
		}
		select {
		case <-news:
		case <-ctx.Done():
			return
		}
	}
}

// showCheckpoint shows the latest checkpoint, and once more with a proof from what the agent turns out to hold.
func (r *Relay) showCheckpoint(ctx context.Context, t *tunnel.Session, latest checkpoint.Signed, held *checkpoint.Checkpoint) (answer tunnel.Witnessed, err error) {
	for range 2 {
		if answer, err = r.askWitness(ctx, t, latest, *held); err != nil || answer.Conflict {
			return answer, err
		}
		now, err := checkpoint.Parse([]byte(answer.Held))
		if err != nil || now.Origin != latest.Origin {
			return answer, nil // it could not verify this one; the next may be signed by a key that it knows
		}
		*held = now
		if now.Size >= latest.Size {
			return answer, nil
		}
	}
	return answer, nil
}

func (r *Relay) askWitness(ctx context.Context, t *tunnel.Session, latest checkpoint.Signed, held checkpoint.Checkpoint) (tunnel.Witnessed, error) {
	_, chain := r.ring.Shown()
	c := tunnel.Checkpoint{Note: string(latest.Note), Chain: chain}
	if held.Size > 0 && held.Size < latest.Size {
		hashes, err := r.audit.ProveExtends(latest.Size, held.Size)
		if err != nil { // what the agent holds has expired, or the files are damaged: it keeps what it has
			return tunnel.Witnessed{}, err
		}
		for _, h := range hashes {
			c.Proof = append(c.Proof, h[:]...)
		}
	}
	asking, cancel := context.WithTimeout(ctx, witnessPatience)
	defer cancel()
	return t.ShowCheckpoint(asking, c)
}

// behind says whether an agent holds what this relay's key has signed, of more lines than the log has ever had since it
// was opened: a log that was rolled back knows it before it has written anything new.
func (r *Relay) behind(note string) bool {
	key, encoded := r.ring.Shown()
	f := checkpoint.KeyFile{Key: key.Public().(ed25519.PublicKey)}
	for _, one := range encoded {
		if link, err := relaykey.Parse(one); err == nil {
			f.Chain = append(f.Chain, link)
		}
	}
	ring, err := checkpoint.Follow([]checkpoint.Anchor{checkpoint.AnchorOf(f.Key)}, f)
	if err != nil {
		return false
	}
	held, err := checkpoint.Open([]byte(note), ring)
	latest, ok, _ := r.audit.Checkpoint()
	return err == nil && ok && held.Origin == latest.Origin && held.Size > latest.Size
}

// witnessRefused is recorded by a relay that was restored from a backup, or whose log somebody changed under it.
func (r *Relay) witnessRefused(agent string, latest checkpoint.Signed, answer tunnel.Witnessed) {
	held, err := checkpoint.Parse([]byte(answer.Held))
	r.log.Error("an agent holds a checkpoint that the audit log does not extend: the log was rolled back or rewritten; keep the folder and run iapctl audit verify",
		"agent", agent, "held", held.Size, "shown", latest.Size, "error", err)
	e := audit.Event{
		Kind: audit.KindRelay, Reason: "witness_refused", Agent: agent, Message: "an agent holds a checkpoint that this log does not extend",
		Detail: map[string]string{"held": strconv.FormatInt(held.Size, 10), "shown": strconv.FormatInt(latest.Size, 10)},
	}
	if err := r.audit.Record(r.ctx, e); err != nil && !errors.Is(err, context.Canceled) {
		r.log.Error("record a witness's refusal", "error", err)
	}
}
