package relay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"

	"iap/internal/admin"
)

// maxPolicyText bounds what is shown of the policy's files together: a client
// reads no more than twice that.
const maxPolicyText = 1 << 20

// Who has the policy loaded, beside administrators.
const (
	bySignal = "signal"
	byStart  = "start"
	byWatch  = "watch"
)

// policyNews is what the last tries to load the policy came to.
type policyNews struct {
	mu       sync.Mutex
	revision string // guarded by mu; of the last that was loaded
	by       string // guarded by mu; who had it loaded
	failed   string // guarded by mu; why the last try failed; empty: it did not
}

// note keeps how a try ended. Whoever has the same policy loaded again did not
// bring it.
func (n *policyNews) note(revision, by string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failed = ""; err != nil {
		n.failed = err.Error()
	} else if revision != n.revision {
		n.revision, n.by = revision, by
	}
}

func (n *policyNews) of(revision string) (by, failed string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if by = byStart; n.revision == revision {
		by = n.by
	}
	return by, n.failed
}

// ShowPolicy tells the policy in force, with its text.
func (a *adminAPI) ShowPolicy(context.Context) (admin.PolicyInForce, error) {
	src := a.relay.policy.Source()
	shown := admin.PolicyInForce{
		Revision: src.Revision, Loaded: src.Loaded, Files: []admin.PolicyFile{}, Grants: []admin.Placed{}, Admins: []admin.Placed{},
	}
	shown.By, shown.Failed = a.relay.policyNews.of(src.Revision)
	left := maxPolicyText
	for _, f := range src.Files {
		sum := sha256.Sum256(f.Text)
		file := admin.PolicyFile{Name: f.Name, SHA256: hex.EncodeToString(sum[:]), Cut: len(f.Text) > left}
		file.Text = strings.ToValidUTF8(string(f.Text[:min(len(f.Text), left)]), "\ufffd")
		left -= min(len(f.Text), left)
		shown.Files = append(shown.Files, file)
	}
	for _, g := range src.Grants.List {
		shown.Grants = append(shown.Grants, admin.Placed{Name: g.Name, Line: g.Line})
	}
	for _, e := range src.Grants.Admins {
		shown.Admins = append(shown.Admins, admin.Placed{Name: e.Name(), Line: e.Line})
	}
	for _, w := range src.Grants.Warnings(a.relay.cfg.WorkloadIssuers()) {
		shown.Warnings = append(shown.Warnings, fmt.Sprintf("line %d: grant %s %s", w.Line, w.Grant, w.Message))
	}
	return shown, nil
}
