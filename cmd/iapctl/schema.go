package main

import (
	"time"

	"iap/internal/admin"
	"iap/internal/console"
	"iap/internal/doctor"
	"iap/internal/version"
)

// schemaName is the first field of every document of -o json. Within iapctl/v1 fields are only added, never renamed, removed
// or given another type. The documents of the operator's commands are console's. Times are RFC 3339, sizes and ports numbers. A field that is not known is left out.
const schemaName = console.Schema

// errorDocument is written to stderr when a command fails.
type errorDocument struct {
	Schema string    `json:"schema"`
	Error  errorBody `json:"error"`
}

type errorBody struct {
	Code    string `json:"code"`    // stable word
	Message string `json:"message"` // for a person
	Next    string `json:"next,omitempty"`
	Exit    int    `json:"exit"` // exit status
	// StepUp is the login that would change it, if one would.
	StepUp *admin.StepUp `json:"step_up,omitempty"`
	Cause  string        `json:"cause,omitempty"`
}

// loginDocument: login.
type loginDocument struct {
	Schema    string     `json:"schema"`
	Profile   string     `json:"profile"`
	Relay     string     `json:"relay"`
	Issuer    string     `json:"issuer"`
	Principal string     `json:"principal"`
	Name      string     `json:"name,omitempty"`
	Grants    int        `json:"grants"` // how many grants name the principal
	Store     string     `json:"store"`  // where the credentials lie
	Expires   *time.Time `json:"expires,omitempty"`
}

// promptDocument: login, one line on stderr while it waits for the person.
type promptDocument struct {
	Schema          string    `json:"schema"`
	VerificationURI string    `json:"verification_uri"`
	Complete        string    `json:"verification_uri_complete,omitempty"`
	UserCode        string    `json:"user_code"`
	Expires         time.Time `json:"expires"`
}

// logoutDocument: logout.
type logoutDocument struct {
	Schema  string `json:"schema"`
	Profile string `json:"profile"`
	Revoked bool   `json:"revoked"`          // the provider has revoked the tokens
	Reason  string `json:"reason,omitempty"` // why not
	Deleted bool   `json:"deleted"`          // local credentials are gone
}

// whoamiDocument: whoami.
type whoamiDocument struct {
	Schema string `json:"schema"`
	admin.Whoami
}

// authDocument: auth status. Nothing in it is secret.
type authDocument struct {
	Schema      string     `json:"schema"`
	Profile     string     `json:"profile"`
	Relay       string     `json:"relay,omitempty"`
	LoggedIn    bool       `json:"logged_in"`
	Source      string     `json:"source"` // store, token_file or token_command
	Store       string     `json:"store,omitempty"`
	Issuer      string     `json:"issuer,omitempty"` // its name at the relay
	IssuerURL   string     `json:"issuer_url,omitempty"`
	Principal   string     `json:"principal,omitempty"`
	Key         string     `json:"key,omitempty"` // fingerprint of the session key
	Since       *time.Time `json:"since,omitempty"`
	Expires     *time.Time `json:"expires,omitempty"` // of the present token
	Refreshable bool       `json:"refreshable"`
}

// tokenDocument: auth token.
type tokenDocument struct {
	Schema string `json:"schema"`
	Token  string `json:"token"`
}

// profilesDocument: profile ls.
type profilesDocument struct {
	Schema   string            `json:"schema"`
	Profiles []profileDocument `json:"profiles"`
}

type profileDocument struct {
	Name      string `json:"name"`
	Current   bool   `json:"current"`
	Relay     string `json:"relay"`
	Issuer    string `json:"issuer,omitempty"`
	CAFile    string `json:"ca_file,omitempty"`
	Principal string `json:"principal,omitempty"`
	LoggedIn  bool   `json:"logged_in"`
}

// doneDocument: profile use, profile rm, disconnect, keys revoke.
type doneDocument struct {
	Schema string   `json:"schema"`
	Action string   `json:"action"`
	Names  []string `json:"names"`
}

// resourcesDocument: resources.
type resourcesDocument struct {
	Schema    string           `json:"schema"`
	Resources []admin.Resource `json:"resources"`
}

// keyDocument: keys create.
type keyDocument struct {
	Schema string `json:"schema"`
	admin.KeyCreated
}

// keysDocument: keys ls.
type keysDocument struct {
	Schema string      `json:"schema"`
	Keys   []admin.Key `json:"keys"`
}

// budgetsDocument: budgets.
type budgetsDocument struct {
	Schema string `json:"schema"`
	admin.BudgetList
}

// connectDocument: connect, one line on stdout once everything listens.
type connectDocument struct {
	Schema      string               `json:"schema"`
	Profile     string               `json:"profile"`
	Relay       string               `json:"relay"`
	Principal   string               `json:"principal,omitempty"`
	Detached    bool                 `json:"detached"`
	PID         int                  `json:"pid"`
	Expires     *time.Time           `json:"expires,omitempty"` // of the session; it is renewed before
	Connections []connectionDocument `json:"connections"`
}

// connectionDocument: one resource on a local port.
type connectionDocument struct {
	Resource string   `json:"resource"`
	Kind     string   `json:"kind"`
	Online   bool     `json:"online"`
	Already  bool     `json:"already,omitempty"` // another process served it before
	PID      int      `json:"pid"`
	Port     int      `json:"port"`
	Listen   []string `json:"listen"`                    // host:port
	URL      string   `json:"url,omitempty"`             // model and http
	OpenAI   string   `json:"openai_base_url,omitempty"` // model
	LocalKey string   `json:"local_key,omitempty"`       // what requests must carry
	Docker   string   `json:"docker_run,omitempty"`      // --for-containers: how a container reaches it
	Moved    string   `json:"moved,omitempty"`           // why the port is not the usual one
	// LoginNeeded: requests get a 401 until somebody logs in
	LoginNeeded bool `json:"login_needed,omitempty"`
}

// envDocument: env -o json.
type envDocument struct {
	Schema    string            `json:"schema"`
	Resource  string            `json:"resource"`
	Connected bool              `json:"connected"`
	Variables map[string]string `json:"variables"`
}

// configureDocument: configure.
type configureDocument struct {
	Schema   string `json:"schema"`
	Tool     string `json:"tool"`
	Resource string `json:"resource"`
	File     string `json:"file"`
	Changed  bool   `json:"changed"` // the file differs, or would
	Written  bool   `json:"written"`
	Backup   string `json:"backup,omitempty"` // the file as it was
}

// chatDocument: chat with a prompt, once the answer is complete.
type chatDocument struct {
	Schema   string `json:"schema"`
	Resource string `json:"resource"`
	Model    string `json:"model"`
	Answer   string `json:"answer"`
	Finish   string `json:"finish_reason,omitempty"`
}

// statusDocument: status. Relay is left out when it cannot be reached; Error then says why.
type statusDocument struct {
	Schema      string               `json:"schema"`
	Profile     string               `json:"profile"`
	RelayName   string               `json:"relay_name,omitempty"`
	Principal   string               `json:"principal,omitempty"`
	Connections []connectionDocument `json:"connections"`
	Relay       *admin.Status        `json:"relay,omitempty"`
	Error       *errorBody           `json:"error,omitempty"`
}

// serviceDocument: service install, service status; service install --print has name, file and text only.
type serviceDocument struct {
	Schema    string   `json:"schema"`
	Name      string   `json:"name"`
	File      string   `json:"file"`
	Installed bool     `json:"installed"`
	Edited    bool     `json:"edited,omitempty"`   // by somebody: neither replaced nor removed without --force
	Outdated  bool     `json:"outdated,omitempty"` // an install would write another text now
	Enabled   bool     `json:"enabled"`            // starts with the login
	Running   bool     `json:"running"`
	PID       int      `json:"pid,omitempty"`
	State     string   `json:"state,omitempty"`     // the service manager's own word
	Lingers   bool     `json:"lingers,omitempty"`   // runs also while the user is logged out
	Resources []string `json:"resources,omitempty"` // those listed
	Text      string   `json:"text,omitempty"`
}

// doctorDocument: doctor.
type doctorDocument struct {
	Schema   string         `json:"schema"`
	Profile  string         `json:"profile,omitempty"`
	Relay    string         `json:"relay,omitempty"`
	Resource string         `json:"resource,omitempty"`
	OK       bool           `json:"ok"` // no stage failed
	Stages   []doctor.Stage `json:"stages"`
}

// versionDocument: version.
type versionDocument struct {
	Schema string `json:"schema"`
	version.Info
	Protocol string `json:"protocol"` // spoken with the relay
}
