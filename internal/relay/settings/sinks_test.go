package settings

import (
	"os"
	"strings"
	"testing"
)

// The examples of docs/audit.md are relay.yaml's.
func TestExamplesOfTheAuditPageAreLoaded(t *testing.T) {
	page, err := os.ReadFile("../../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]bool{}
	for _, block := range strings.Split(string(page), "\n\n") {
		if !strings.HasPrefix(block, "    audit:\n") {
			continue
		}
		c, err := loadText(t, goodConfig+strings.ReplaceAll("\n"+block, "\n    ", "\n")+"\n")
		if err != nil {
			t.Errorf("%s\n%v", block, err)
			continue
		}
		for _, s := range c.Audit.Sinks {
			types[s.Type] = true
		}
	}
	if len(types) != sinkTypes {
		t.Errorf("examples of %v", types)
	}
}

// sinkTypes is how many types of sinks there are.
const sinkTypes = 3

func TestSinksThatCannotWorkAreNamed(t *testing.T) {
	const hook = "{name: siem, type: webhook, url: 'https://siem.example.com/in', secret_file: s}"
	for field, sinks := range map[string]string{
		"audit.sinks[0].name":                      strings.Replace(hook, "siem", "Si/em", 1),
		"audit.sinks[1].name: there are two":       hook + ", " + hook,
		"audit.sinks[0].type":                      strings.Replace(hook, "webhook", "smoke", 1),
		"audit.sinks[0].secret_file":               strings.Replace(hook, ", secret_file: s", "", 1),
		"audit.sinks[0].from":                      strings.Replace(hook, "secret_file", "from: then, secret_file", 1),
		"audit.sinks[0].cert_file":                 strings.Replace(hook, "secret_file", "key_file: k, secret_file", 1),
		"audit.sinks[0].url: a webhook has no ftp": strings.Replace(hook, "https", "ftp", 1),
		"audit.sinks[0].url: http:// would show":   strings.Replace(hook, "https", "http", 1),
		"audit.sinks[0].url: holds a user":         strings.Replace(hook, "siem.ex", "me:pa55@siem.ex", 1),
		`audit.sinks[0].url: "…" is no URL`:        strings.Replace(hook, "siem.ex", "me:pa55@%zzsiem.ex", 1),

		"audit.sinks[0].url: of a syslog receiver": "{name: a, type: syslog, url: 'tls://siem.example.com/x'}",
		"audit.sinks[0].url: tcp:// would show":    "{name: a, type: syslog, url: 'tcp://siem.example.com'}",
		"audit.sinks[0].url: a syslog has no http": "{name: a, type: syslog, url: 'https://siem.example.com'}",
		"audit.sinks[0].max_message":               "{name: a, type: syslog, url: 'tls://siem.example.com', max_message: 1KiB}",
		"audit.sinks[0].headers_file":              "{name: a, type: syslog, url: 'tls://siem.example.com', headers_file: h}",
		"audit.sinks[0].secret_file: is for":       "{name: a, type: otlp, url: 'https://otel.example.com', secret_file: h}",
	} {
		_, err := loadText(t, goodConfig+"audit: {sinks: ["+sinks+"]}\n")
		if err == nil || !strings.Contains(err.Error(), field) || strings.Contains(err.Error(), "pa55") {
			t.Errorf("%s: got %v", field, err)
		}
	}
	for _, good := range []string{
		"{name: a, type: syslog, url: 'unix:///dev/log', secret_file: ''}, " + hook, "{name: a, type: syslog, url: 'udp://[::1]:514', max_message: 64KiB}, " + hook,
		hook, strings.Replace(hook, "https://siem.example.com", "http://127.0.0.1:8080", 1), strings.Replace(hook, "https", "http", 1)[:len(hook)-2] + ", cleartext: true}",
	} {
		c, err := loadText(t, goodConfig+"audit: {sinks: ["+good+"]}\n")
		if err != nil {
			t.Errorf("%s: %v", good, err)
			continue
		}
		all := c.Audit.AllSinks()
		if s := all[len(all)-1]; s.From != "now" || !strings.HasPrefix(s.SecretFile, "/") {
			t.Errorf("%+v", s)
		}
	}
}
