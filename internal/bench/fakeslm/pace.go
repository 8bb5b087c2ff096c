package fakeslm

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Pace says how one answer is produced.
type Pace struct {
	Tokens    int           // per answer, unless the request says
	PerSecond float64       // and stream; 0: as fast as possible
	FirstWait time.Duration // before the first token
}

// due is the time after the start of the answer at which token i is to be sent.
func (p Pace) due(i int) time.Duration {
	if p.PerSecond <= 0 {
		return p.FirstWait
	}
	return p.FirstWait + time.Duration(float64(i)/p.PerSecond*float64(time.Second))
}

// setPace changes what later answers follow.
func (s *Server) setPace(w http.ResponseWriter, r *http.Request) {
	p := *s.pace.Load()
	for name, values := range r.URL.Query() {
		var err error
		switch v := values[0]; name {
		case "tokens":
			p.Tokens, err = strconv.Atoi(v)
		case "tps":
			p.PerSecond, err = strconv.ParseFloat(v, 64)
		case "ttft":
			p.FirstWait, err = time.ParseDuration(v)
		default:
			err = errors.New("no such setting")
		}
		if err != nil {
			http.Error(w, fmt.Sprintf("%s: %v", name, err), http.StatusBadRequest)
			return
		}
	}
	s.pace.Store(&p)
	writeJSON(w, map[string]any{"tokens": p.Tokens, "tps": p.PerSecond, "ttft": p.FirstWait.String()})
}
