package main

import "encoding/json"

// What happens to a connect while it runs, in a word.
const (
	eventLoginNeeded = "login_needed"
	eventLoggedIn    = "logged_in"
	eventRelayLost   = "relay_lost"
	eventRelayBack   = "relay_back"
	eventNotServed   = "not_served" // one resource of a list
)

// event is told on stderr while connect runs: as narration, or with -o json as one line each.
type event struct {
	Schema  string `json:"schema"`
	Event   string `json:"event"`
	Code    string `json:"code,omitempty"` // why, as an error has it
	Message string `json:"message"`
	Next    string `json:"next,omitempty"` // what to type
}

// tell narrates an event.
func (a *app) tell(e event) {
	if a.output == "json" {
		e.Schema = schemaName
		_ = json.NewEncoder(a.err).Encode(e) // narration has nobody to fail to
		return
	}
	if e.Event == eventRelayBack || e.Event == eventLoggedIn {
		a.say("%s %s", a.ui.err.good.Render("✓"), e.Message)
		return
	}
	a.remark(e.Message)
	if e.Next != "" {
		a.say("  Next: %s", a.ui.err.bold.Render(e.Next))
	}
}
