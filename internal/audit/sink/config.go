package sink

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Types of sinks.
const (
	OTLP    = "otlp"    // an OpenTelemetry collector, over HTTP
	Syslog  = "syslog"  // RFC 5424
	Webhook = "webhook" // signed posts
)

// Types are all of them.
func Types() []string { return []string{OTLP, Syslog, Webhook} }

// Where a new sink begins.
const (
	FromNow   = "now"   // with what is written from now on
	FromStart = "start" // with the oldest record there is
)

// Config is one sink.
type Config struct {
	Name        string // names its position: a-z, 0-9 and dash
	Type        string
	URL         string // of the receiver
	From        string // FromNow (default) or FromStart; of a sink that has no position yet
	CAFile      string // certificates to trust for the receiver, PEM; default: the system's
	CertFile    string // what the relay shows of itself, PEM, with KeyFile
	KeyFile     string
	SecretFile  string // what batches are signed with
	HeadersFile string // headers of each request, a line each
	MaxMessage  int    // bytes of a syslog message; 0: 8 KiB, over UDP 2 KiB
	Cleartext   bool   // the receiver is reached over a network without TLS
}

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// kinds say of each type which schemes it has, and whether each is encrypted.
var kinds = map[string]map[string]bool{
	OTLP:    {"https": true, "http": false},
	Syslog:  {"tls": true, "tcp": false, "udp": false, "unix": false},
	Webhook: {"https": true, "http": false},
}

// Validate names the first field that cannot work and says what it wants.
func (c Config) Validate() error {
	switch {
	case !nameForm.MatchString(c.Name):
		return fmt.Errorf("name: %q is none: a-z, 0-9 and dash, at most 32", c.Name)
	case !slices.Contains(Types(), c.Type):
		return fmt.Errorf("type: %q is none of %s", c.Type, strings.Join(Types(), ", "))
	case c.From != "" && c.From != FromNow && c.From != FromStart:
		return fmt.Errorf("from: %q is neither now nor start", c.From)
	case (c.CertFile == "") != (c.KeyFile == ""):
		return errors.New("cert_file: cert_file and key_file go together")
	case c.Type == Webhook && c.SecretFile == "":
		return errors.New("secret_file: missing; the receiver could not tell our batches from anybody's")
	case c.Type != Webhook && c.SecretFile != "":
		return errors.New("secret_file: is for webhooks")
	case c.Type == Syslog && c.HeadersFile != "":
		return errors.New("headers_file: syslog has no headers")
	case c.MaxMessage != 0 && (c.Type != Syslog || c.MaxMessage < minMessage || c.MaxMessage > maxMessage):
		return errors.New("max_message: is for syslog, from 2KiB to 64KiB")
	}
	return c.validateURL()
}

func (c Config) validateURL() error {
	u, err := url.Parse(c.URL)
	local := err == nil && u.Scheme == "unix" && u.Host == "" && u.Path != ""
	if err != nil || u.Host == "" && !local {
		return fmt.Errorf("url: %s is no URL of a receiver", quoted(c.URL))
	}
	encrypted, known := kinds[c.Type][u.Scheme]
	switch {
	case !known:
		return fmt.Errorf("url: a %s has no %s://", c.Type, u.Scheme)
	case c.Type == Syslog && !local && u.Path+u.RawQuery != "":
		return errors.New("url: of a syslog receiver ends with its port, such as tls://siem.example.com:6514")
	case u.User != nil:
		return errors.New("url: holds a user or a password; put them into headers_file")
	case u.Fragment != "":
		return errors.New("url: has a fragment, which is never sent")
	case !encrypted && !c.Cleartext && !local && !isLoopback(u.Hostname()):
		return fmt.Errorf("url: %s:// would show the log to the network; write an encrypted one, or cleartext: true", u.Scheme)
	case !encrypted && (c.CAFile != "" || c.CertFile != ""):
		return fmt.Errorf("ca_file, cert_file: %s:// has no certificates", u.Scheme)
	}
	return nil
}

// Target is the receiver as it may be shown: a path may hold a secret.
func (c Config) Target() string {
	u, err := url.Parse(c.URL)
	if err != nil {
		return c.Type
	}
	if u.Host == "" {
		return c.URL // a local socket
	}
	return u.Scheme + "://" + u.Host
}

// IsClear says that the log crosses a network unencrypted.
func (c Config) IsClear() bool {
	u, err := url.Parse(c.URL)
	return err == nil && !kinds[c.Type][u.Scheme] && u.Host != "" && !isLoopback(u.Hostname())
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// quoted is a text of which a part may be a secret.
func quoted(text string) string {
	if before, _, found := strings.Cut(text, "@"); found && len(before) > 0 {
		return `"…"`
	}
	return fmt.Sprintf("%q", text)
}
