package agent

import (
	"fmt"
	"strings"
	"testing"

	"iap/internal/modelapi"
)

func TestAnnouncementTellsAliasesAndCapacity(t *testing.T) {
	up := newUpstream(t)
	r := startHostileRelay(t)
	a := r.agent(r.agentConfig("  - {name: phi3, kind: model, upstream: \"" + up.URL + "\", models: [\"phi*\"], aliases: {default: phi3}, capacity: 3}\n"))
	t.Cleanup(a.transport.CloseIdleConnections)
	a.probeAll(within(t))
	got := a.announcements()[0]
	if got.Capacity != 3 || got.Aliases["default"] != "phi3" || strings.Join(got.Models, ",") != "phi3" || got.Server != modelapi.ServerOpenAI {
		t.Errorf("%+v", got)
	}
}

// TestAnnouncementFitsAControlMessage: one that did not would keep the agent from connecting at all.
func TestAnnouncementFitsAControlMessage(t *testing.T) {
	a := &Agent{}
	for i := range 64 {
		u := &upstream{cfg: &ResourceConfig{Name: fmt.Sprint("r", i), Kind: modelapi.KindModel}}
		for n := range maxModels {
			u.state.add(fmt.Sprint(n) + strings.Repeat("m", 500))
		}
		a.upstreams = append(a.upstreams, u)
	}
	size := 0
	for _, one := range a.announcements() {
		for _, m := range one.Models {
			size += len(m)
		}
	}
	if size == 0 || size > maxAnnounced {
		t.Errorf("%d bytes of names", size)
	}
}

func TestCheckTellsWhatIsThere(t *testing.T) {
	up := newUpstream(t)
	r := startHostileRelay(t)
	check := func(options string) string {
		var all strings.Builder
		for _, one := range Check(within(t), r.agentConfig("  - {name: phi3, kind: model, upstream: \""+up.URL+"\""+options+"}\n")).Stages {
			fmt.Fprintln(&all, one.Found)
		}
		return all.String()
	}
	for options, want := range map[string]string{
		"": " is openai with phi3, llama3; capacity has no bound",
		", models: [phi3], aliases: {default: phi3}, capacity: 2": " is openai with phi3; default is phi3; capacity 2, then 64 may wait, 16 of each principal, up to 2m0s",
		", aliases: {default: phi4}":                              "aliases: default leads to phi4, which " + up.URL + " does not have; it has phi3, llama3",
		", models: [\"none*\"]":                                   "models lists none of what it has: phi3, llama3",
		", server: vllm":                                          " is vllm by configuration (it answers as openai)",
	} {
		if got := check(options); !strings.Contains(got, want) {
			t.Errorf("%s: %s", options, got)
		}
	}
}
