package main

import (
	"errors"

	"iap/internal/connect"
	"iap/internal/doctor"
)

// network notes the stages from the name to the upgrade, and returns the error of the one that failed.
func (c *checkup) network(way connect.Way, err error) error {
	if f := c.report.Network(c.dial(way, err)); f != nil {
		return c.failed(*f, err)
	}
	return nil
}

func (c *checkup) dial(way connect.Way, err error) doctor.Network {
	return doctor.Network{
		Relay: c.profile.Settings.Relay, Way: way.Way, Err: err, Known: c.state.RelayKey != "", CAHint: "--ca-file FILE",
		Explain: finding, Clock: clock,
	}
}

// finding is an error in the words of all of iapctl.
func finding(err error) doctor.Finding {
	f := failureOf(err)
	return doctor.Finding{Code: f.code, What: f.what, Next: f.next}
}

// failed is a finding as the error that the command ends with.
func (c *checkup) failed(f doctor.Finding, cause error) error {
	failure := &failure{code: f.Code, what: f.What, next: f.Next, cause: cause}
	if known := failureOf(cause); known.code == f.Code {
		failure.exitCode = known.exitCode
	}
	return failure
}

// betrayed looks at a session that was refused for what its two ends signed.
func (c *checkup) betrayed(err error, way connect.Way) error {
	if errors.Is(err, connect.ErrRelayChanged) {
		return err
	}
	return c.failed(c.dial(way, err).Betrayed(finding(err)), err)
}
