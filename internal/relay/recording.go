package relay

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"iap/internal/audit"
	"iap/internal/audit/recording"
	"iap/internal/guard"
	"iap/internal/sealed"
)

// openRecording makes ready for grants whose requests are written down. Without
// it they are refused.
func (r *Relay) openRecording() error {
	c := r.cfg.Audit.Recording
	if !c.Enabled() {
		return nil
	}
	recipients, err := sealed.ParseRecipients(c.Recipients)
	if err != nil {
		return err
	}
	r.recordings, err = recording.New(recording.Options{
		Dir: c.Dir, Recipients: recipients, MaxBody: int64(c.MaxBytes), MaxDisk: int64(c.Disk), Retain: time.Duration(c.Retain),
		Sync: r.cfg.Audit.Sync == "group", Expiring: r.recordingsExpire, Logger: r.log, Now: r.now,
	})
	return err
}

// recordingsExpire says in the log which day's recordings are about to be deleted.
func (r *Relay) recordingsExpire(ctx context.Context, day string, files int, bytes int64) error {
	return r.audit.Record(ctx, audit.Event{
		Kind: audit.KindRelay, Reason: "recordings_expired",
		Detail: map[string]string{"day": day, "files": strconv.Itoa(files), "bytes": strconv.FormatInt(bytes, 10)},
	})
}

// keep writes a request down before it goes on.
func (r *Relay) keep(q *guard.Request) (guard.Keeping, string, error) {
	record, mark, err := r.recordings.Begin(recording.Request{
		ID: q.ID, Resource: q.Resource.Name, Action: string(q.Class.Action), Model: q.Class.Model, Grant: q.Decision.Grant,
		Method: q.Method, Path: q.Target, Header: q.Header, Body: q.Body,
	})
	if err != nil {
		return nil, "", err
	}
	return keeping{record}, mark.String(), nil
}

// keeping is a recording as the guard knows it.
type keeping struct{ *recording.Record }

func (k keeping) Answer(status int, h http.Header) error { return k.Record.Answer(status, h) }

func (k keeping) End(why string) (string, error) {
	mark, err := k.Record.End(why)
	return mark.String(), err
}
