package load

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"
)

const (
	controlTimeout = 20 * time.Second
	maxStats       = 64 << 10
)

// setPace tells the model server how fast the streams to come shall be.
func (l *Load) setPace(ctx context.Context, perSecond float64) error {
	path := "/pace?tps=" + strconv.FormatFloat(perSecond, 'f', -1, 64)
	_, err := l.tell(ctx, l.Control.request("POST", path, []byte("{}")))
	return err
}

// sunkBytes asks the model server how many bytes its /sink has received.
func (l *Load) sunkBytes(ctx context.Context) (int64, error) {
	body, err := l.tell(ctx, l.Control.request("GET", "/stats", nil))
	if err != nil {
		return 0, err
	}
	var stats struct {
		SunkBytes int64 `json:"sunk_bytes"`
	}
	err = json.Unmarshal(body, &stats)
	return stats.SunkBytes, err
}

// tell sends one request to the model server itself.
func (l *Load) tell(ctx context.Context, request []byte) ([]byte, error) {
	c, err := l.Control.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("reach the model server: %w", err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(controlTimeout)) // a fresh connection takes deadlines
	resp, err := c.begin(request)
	if err != nil {
		return nil, fmt.Errorf("control the model server: %w", err)
	}
	body := make([]byte, min(max(resp.length, 0), maxStats))
	if _, err := io.ReadFull(c.r, body); err != nil {
		return nil, fmt.Errorf("control the model server: %w", err)
	}
	return body, nil
}
