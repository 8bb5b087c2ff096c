package sink

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// otlpPath is where a collector takes logs, if the URL names no path.
const otlpPath = "/v1/logs"

// otlp exports batches to an OpenTelemetry collector: OTLP/HTTP 1 with JSON, compressed with gzip, which every server must
// take. The protocol has a client drop what is answered by other statuses than 429, 502, 503 and 504. This one keeps it and
// asks again, seldom: a token that has expired is no reason to lose an audit log.
type otlp struct {
	*poster
	origin   string
	resource otlpResource
	scope    otlpScope
}

func openOTLP(o Options, c Config) (target, error) {
	if u, err := url.Parse(c.URL); err == nil && strings.Trim(u.Path, "/") == "" {
		u.Path = otlpPath
		c.URL = u.String()
	}
	p, err := newPoster(o, c)
	if err != nil {
		return nil, err
	}
	_, instance := splitOrigin(o.Origin)
	return &otlp{
		poster: p, origin: o.Origin, scope: otlpScope{Name: "iap/audit", Version: o.Version},
		resource: otlpResource{Attributes: []otlpAttribute{
			text("service.name", "iap-relay"), text("service.version", o.Version), text("service.instance.id", instance), text("iap.log", o.Origin),
		}},
	}, nil
}

func (t *otlp) send(ctx context.Context, b batch) (receipt, error) {
	records := make([]otlpRecord, len(b.records))
	for i, r := range b.records {
		records[i] = t.record(r)
	}
	answer, err := t.export(ctx, []otlpResourceLogs{{t.resource, []otlpScopeLogs{{t.scope, records}}}})
	if err != nil {
		return receipt{}, err
	}
	return partialSuccess(answer, len(records)), nil
}

// probe exports nothing, which a collector takes: so the way, the path and the token are tried.
func (t *otlp) probe(ctx context.Context) error {
	_, err := t.export(ctx, []otlpResourceLogs{})
	return err
}

func (t *otlp) export(ctx context.Context, logs []otlpResourceLogs) (answer []byte, err error) {
	var body bytes.Buffer
	packed, err := gzip.NewWriterLevel(&body, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	encoder := json.NewEncoder(packed)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(otlpRequest{logs}); err != nil {
		return nil, err
	}
	if err := packed.Close(); err != nil {
		return nil, err
	}
	return t.post(ctx, body.Bytes(), http.Header{
		"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"}, "User-Agent": {"iap-relay"},
	})
}

// partialSuccess reads how many records of a batch the server took. One that says nothing, or nothing to be understood, took
// all of them.
func partialSuccess(answer []byte, of int) receipt {
	var a struct {
		PartialSuccess struct {
			RejectedLogRecords json.RawMessage `json:"rejectedLogRecords"` // a text, or a number: a reader takes both
			ErrorMessage       string          `json:"errorMessage"`
		} `json:"partialSuccess"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return receipt{}
	}
	rejected, err := strconv.ParseInt(strings.Trim(string(a.PartialSuccess.RejectedLogRecords), `"`), 10, 64)
	if err != nil || rejected < 0 {
		return receipt{}
	}
	return receipt{rejected: int(min(rejected, int64(of))), message: a.PartialSuccess.ErrorMessage}
}

// splitOrigin takes the relay's name and its instance out of a log's name.
func splitOrigin(origin string) (relay, instance string) {
	relay, instance, _ = strings.Cut(origin, "/audit/")
	return relay, instance
}
