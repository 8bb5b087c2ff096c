package relay

import (
	"path/filepath"

	"iap/internal/audit/sink"
	"iap/internal/version"
)

// sinksFolder, in the data folder, says how far each sink has come.
const sinksFolder = "sinks"

// startSinks begins to send the audit log to its receivers. They read its files
// for themselves and are closed before it is: what is not sent by then is sent
// at the next start.
func (r *Relay) startSinks() (err error) {
	r.sinks, err = sink.Start(sink.Options{
		Dir: r.cfg.Audit.Dir, Positions: filepath.Join(r.cfg.Data, sinksFolder), Origin: r.auditOrigin(), Version: version.String(),
		Record: r.audit.Record, Now: r.now, Logger: r.log,
	}, r.cfg.Audit.AllSinks())
	if err == nil {
		r.closers = append(r.closers, r.sinks.Close)
	}
	return err
}
