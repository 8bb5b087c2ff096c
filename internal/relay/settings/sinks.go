package settings

import (
	"context"
	"fmt"

	"iap/internal/audit/sink"
	"iap/internal/config"
)

// SinkConfig is a receiver of the audit log besides the files. However slow it
// is, or gone, no request waits for it.
type SinkConfig struct {
	// Name names the sink, and the file in Data/sinks that says how far it has
	// come: a-z, 0-9 and dash. Required.
	Name string `yaml:"name"`
	// Type is syslog, otlp (an OpenTelemetry collector) or webhook. Required.
	Type string `yaml:"type"`
	// URL is the receiver. Of syslog tls://host:6514, tcp://host:514, udp://host:514
	// or unix:///dev/log; of otlp https://host:4318/v1/logs; of a webhook
	// https://host/path. Required.
	URL string `yaml:"url"`
	// From is where a new sink begins: now (default), or start, with the oldest
	// record that there is. One that has sent before goes on where it was.
	From string `yaml:"from"`
	// CAFile holds the certificates to trust for the receiver, PEM. Default: the
	// system's.
	CAFile string `yaml:"ca_file"`
	// CertFile and KeyFile are what the relay shows of itself, PEM. Default none.
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// SecretFile holds what a webhook's batches are signed with: whsec_ and 24 to
	// 64 bytes in base64. Several lines sign several times. Required of a webhook.
	SecretFile string `yaml:"secret_file"`
	// HeadersFile holds headers of each HTTP request, such as Authorization: a line
	// each. It is read again for each. Default none.
	HeadersFile string `yaml:"headers_file"`
	// MaxMessage bounds a syslog message: a record that is longer is cut, and says
	// so. From 2KiB to 64KiB. Default 8KiB, over UDP 2KiB.
	MaxMessage config.Bytes `yaml:"max_message"`
	// Cleartext lets the log cross a network unencrypted. Default false: without
	// TLS only this machine is reached.
	Cleartext bool `yaml:"cleartext"`
}

// Sink is the sink as its package wants it.
func (s SinkConfig) Sink() sink.Config {
	return sink.Config{
		Name: s.Name, Type: s.Type, URL: s.URL, From: s.From, CAFile: s.CAFile, CertFile: s.CertFile, KeyFile: s.KeyFile,
		SecretFile: s.SecretFile, HeadersFile: s.HeadersFile, MaxMessage: int(s.MaxMessage), Cleartext: s.Cleartext,
	}
}

// AllSinks are the audit log's, as their package wants them.
func (c AuditConfig) AllSinks() []sink.Config {
	all := make([]sink.Config, len(c.Sinks))
	for i, s := range c.Sinks {
		all[i] = s.Sink()
	}
	return all
}

func (c *Config) resolveSinks() {
	for i := range c.Audit.Sinks {
		s := &c.Audit.Sinks[i]
		setDefault(&s.From, sink.FromNow)
		for _, path := range []*string{&s.CAFile, &s.CertFile, &s.KeyFile, &s.SecretFile, &s.HeadersFile} {
			*path = config.Resolve(c.file, *path)
		}
	}
}

func (c AuditConfig) validateSinks() error {
	names := map[string]bool{}
	for i, s := range c.Sinks {
		if err := s.Sink().Validate(); err != nil {
			return fmt.Errorf("audit.sinks[%d].%w", i, err)
		}
		if names[s.Name] {
			return fmt.Errorf("audit.sinks[%d].name: there are two of %s", i, s.Name)
		}
		names[s.Name] = true
	}
	return nil
}

// checkSink reads the sink's files and asks for its receiver. One that cannot be
// reached keeps no relay from starting.
func checkSink(ctx context.Context, c sink.Config) Result {
	r := Result{Name: "sink " + c.Name, Detail: c.Target()}
	found, err := sink.Probe(ctx, c)
	switch {
	case err != nil && !found:
		r.Problem = err.Error()
	case err != nil:
		r.Warnings = append(r.Warnings, err.Error())
	}
	if c.IsClear() {
		r.Warnings = append(r.Warnings, "the log crosses the network unencrypted")
	}
	return r
}
