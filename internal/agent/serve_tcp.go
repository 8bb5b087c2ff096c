package agent

import (
	"context"
	"log/slog"
	"net"

	"iap/tunnel"
)

// serveTCP joins the stream with a connection to the upstream.
func (a *Agent) serveTCP(ctx context.Context, st *tunnel.Stream, h tunnel.Header) {
	a.busy.Add(1)
	defer a.busy.Add(-1)
	u, err := a.lookup(h)
	if err == nil {
		err = u.checkHeader(h)
	}
	if err == nil && a.stopping.Load() {
		err = refusef(tunnel.CodeDraining, "the agent of %s is stopping", u.cfg.Name)
	}
	x := &exchange{agent: a, stream: st, header: h}
	var conn net.Conn
	if err == nil {
		conn, err = dialUpstream(ctx, "tcp", u.cfg.Upstream)
		if err != nil {
			if ctx.Err() == nil {
				a.missed(u)
			}
			err = upstreamRefusal(ctx, u, err)
		}
	}
	if err != nil {
		no := asRefusal(err)
		x.log(slog.LevelWarn, "stream refused", "code", no.code, "error", err)
		_ = st.WriteReply(tunnel.Reply{Code: no.code.String(), Message: no.message, NotSent: true}, nil) // the stream ends either way
		_ = st.Close()
		return
	}
	if err := st.WriteReply(tunnel.Reply{OK: true}, nil); err != nil {
		conn.Close()
		return
	}
	defer a.works(u)()
	spliced, err := tunnel.Splice(ctx, st, tunnel.TCP(conn.(*net.TCPConn)))
	x.log(slog.LevelDebug, "tcp stream ended", "to_upstream", spliced.AToB, "from_upstream", spliced.BToA, "error", err)
}
