package settings

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"time"

	"iap/auth"
	"iap/internal/screen"
	"iap/internal/state"
	"iap/policy/rego"
)

// certificateSoon is how long before its end a certificate is worth a word.
const certificateSoon = 14 * 24 * time.Hour

// Result is one line of `iap-relay check`. An empty Problem is a pass.
type Result struct {
	Name    string `json:"name"`
	Detail  string `json:"detail,omitempty"`
	Problem string `json:"problem,omitempty"`
	// Warnings are of what works and is hardly meant.
	Warnings []string `json:"warnings,omitempty"`
}

// Check reads everything a start would read and reports each part. It changes
// nothing.
func Check(ctx context.Context, file string) []Result {
	cfg, err := Load(file)
	if err != nil {
		return []Result{{Name: "config", Problem: err.Error()}}
	}
	results := []Result{{Name: "config", Detail: file}, checkCertificate(cfg), checkPolicy(ctx, cfg)}
	if cfg.IsShared() {
		results = append(results, checkState(ctx, cfg))
	}
	for _, issuer := range cfg.Issuers {
		results = append(results, checkIssuer(ctx, issuer))
	}
	if len(cfg.Issuers) > 1 {
		results = append(results, checkIssuers(cfg))
	}
	if cfg.Audit.Recording.Enabled() {
		results = append(results, checkRecording(cfg.Audit.Recording))
	}
	for _, one := range cfg.Audit.AllSinks() {
		results = append(results, checkSink(ctx, one))
	}
	return results
}

// checkState asks the database that several relays share.
func checkState(ctx context.Context, cfg *Config) Result {
	found, warnings, err := state.Probe(ctx, cfg.State)
	r := Result{Name: "state", Detail: found, Warnings: warnings}
	if err != nil {
		r.Problem = err.Error()
	}
	return r
}

// checkIssuers looks at what must hold among the issuers: doors and programs kept apart.
func checkIssuers(cfg *Config) Result {
	r := Result{Name: "issuers", Detail: "apart from each other"}
	var all []auth.IssuerConfig
	for _, issuer := range cfg.Issuers {
		one, err := issuer.Verifier()
		if err != nil {
			return Result{Name: "issuers", Problem: err.Error()}
		}
		all = append(all, one)
	}
	if err := auth.CheckIssuers(all); err != nil {
		r.Detail, r.Problem = "", err.Error()
	}
	return r
}

func checkCertificate(cfg *Config) Result {
	r := Result{Name: "certificate", Detail: cfg.TLS.CertFile}
	pair, err := tls.LoadX509KeyPair(cfg.TLS.CertFile, cfg.TLS.KeyFile)
	if err != nil {
		r.Problem = err.Error()
		return r
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		r.Problem = err.Error()
		return r
	}
	host := cfg.Name
	if h, _, err := net.SplitHostPort(cfg.Name); err == nil {
		host = h
	}
	left := time.Until(leaf.NotAfter)
	switch {
	case leaf.VerifyHostname(host) != nil:
		r.Problem = fmt.Sprintf("%s is not for %s but for %v", cfg.TLS.CertFile, host, leaf.DNSNames)
	case left <= 0:
		r.Problem = fmt.Sprintf("%s expired on %s", cfg.TLS.CertFile, leaf.NotAfter.Format(time.DateOnly))
	case left < certificateSoon:
		r.Detail += fmt.Sprintf(", expires soon: %s", leaf.NotAfter.Format(time.DateOnly))
	default:
		r.Detail += fmt.Sprintf(", good until %s", leaf.NotAfter.Format(time.DateOnly))
	}
	return r
}

func checkPolicy(ctx context.Context, cfg *Config) Result {
	r := Result{Name: "policy", Detail: cfg.Policy.Grants}
	engine, err := rego.New(ctx, cfg.Rego(nil, nil))
	if err != nil {
		r.Problem = err.Error()
		return r
	}
	r.Detail += fmt.Sprintf(", %s, revision %s", screen.Count(len(engine.Grants().List), "grant"), engine.Revision())
	r.Problem = cfg.unrecordable(engine.Grants().List)
	for _, w := range engine.Grants().Warnings(cfg.WorkloadIssuers()) {
		r.Warnings = append(r.Warnings, fmt.Sprintf("%s:%d: grant %s %s", cfg.Policy.Grants, w.Line, w.Grant, w.Message))
	}
	return r
}

func checkIssuer(ctx context.Context, issuer IssuerConfig) Result {
	r := Result{Name: "issuer " + issuer.Name, Detail: issuer.URL}
	verifier, err := issuer.Verifier()
	if err == nil {
		err = auth.CheckIssuer(ctx, verifier)
	}
	if err != nil {
		r.Problem = err.Error()
	}
	return r
}
