package e2e

import (
	"strings"
	"testing"
	"time"

	"iap/internal/dev"
)

// A pod whose token file is stale when a session is needed is told so, and goes on by itself once the file is replaced.
func TestStaleTokenFileIsToldAndItsSuccessorTaken(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{
		config: func(text string) string {
			return strings.Replace(text, "    client_id:", "    workload: true\n    client_id:", 1)
		},
		grants: strings.Replace(usualGrants, `to: ["group:dev/ml-eng"]`, `to: ["user:dev/system:serviceaccount:ml:evaluator"]`, 1),
	})
	up, _ := startDemo(t, 500)
	s.startAgent(map[string]string{"phi3=model": up.url})
	pod := dev.Kubernetes(s.provider.ClientID())
	long := time.Now().Add(-time.Hour).Unix()
	expired := pod.With(map[string]any{"iat": long, "nbf": long, "exp": long + 600})

	u := s.bearing(s.provider.MintForm(pod))
	var file string
	for _, kv := range u.env {
		if name, ok := strings.CutPrefix(kv, "IAP_TOKEN_FILE="); ok {
			file = name
		}
	}
	c := u.connect("phi3", "--ca-file", s.ca)
	web := newCaller(t, c.url())
	if got := web.ask("GET", "/v1/models", ""); got.status != 200 {
		t.Fatalf("with a good token: %+v", got)
	}
	s.write(file, s.provider.MintForm(expired))
	s.relay.stop()
	s.startRelay()
	eventually(t, "the listener says what is wrong", func() bool {
		got := web.ask("GET", "/v1/models", "")
		return got.status == 401 && got.code() == "token_expired" && strings.Contains(got.body, "check IAP_TOKEN_FILE") && !strings.Contains(got.body, "iapctl login")
	})
	if said := c.awaitText(0, `"event":"login_needed"`, 1); !strings.Contains(said, `"next":"check IAP_TOKEN_FILE"`) || strings.Contains(said, "iapctl login") {
		t.Errorf("the log reads %s", said)
	}
	if message := u.fails(4, "token_invalid", "whoami", "--ca-file", s.ca); !strings.Contains(message, "token_expired") {
		t.Errorf("a command says %q", message)
	}
	if got := u.run("whoami", "--ca-file", s.ca); !strings.Contains(got.errOut, "check IAP_TOKEN_FILE") {
		t.Errorf("a command says %s", got.errOut)
	}
	s.write(file, s.provider.MintForm(pod))
	eventually(t, "the successor is taken", func() bool { return web.ask("GET", "/v1/models", "").status == 200 })
}
