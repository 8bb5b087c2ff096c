package fleet

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"iap/internal/modelapi"
	"iap/tunnel"
)

func first(int) int { return 1 } // never the later of two alike

func TestChoiceGoesToTheAgentThatCanServeAndIsLeastFull(t *testing.T) {
	for name, one := range map[string]struct {
		all  []Candidate
		want string
	}{
		"nobody":                          {nil, ""},
		"less load":                       {[]Candidate{{Agent: "a", Healthy: true, Load: 2}, {Agent: "b", Healthy: true, Load: 1}}, "b"},
		"more room":                       {[]Candidate{{Agent: "a", Healthy: true, Load: 1, Capacity: 2}, {Agent: "b", Healthy: true, Load: 3, Capacity: 8}}, "b"},
		"a bound before none":             {[]Candidate{{Agent: "a", Healthy: true, Load: 1}, {Agent: "b", Healthy: true, Load: 1, Capacity: 4}}, "b"},
		"health before load":              {[]Candidate{{Agent: "a", Load: 0}, {Agent: "b", Healthy: true, Load: 90}}, "b"},
		"the model before health":         {[]Candidate{{Agent: "a", Healthy: true}, {Agent: "b", Models: 1}}, "b"},
		"alone, though not well":          {[]Candidate{{Agent: "a", Load: 7}}, "a"},
		"figures that nobody can believe": {[]Candidate{{Agent: "a", Healthy: true, Load: 1 << 20, Capacity: 1 << 20}, {Agent: "b", Healthy: true, Load: 0, Capacity: -5}}, "b"},
	} {
		got := ""
		if i := Choose(one.all, first); i >= 0 {
			got = one.all[i].Agent
		}
		if got != one.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestTiesAreBrokenAtRandom(t *testing.T) {
	all := []Candidate{{Agent: "a", Healthy: true}, {Agent: "b", Healthy: true}, {Agent: "c", Healthy: true}, {Agent: "d", Healthy: true, Load: 1}}
	random := rand.New(rand.NewPCG(1, 2))
	got := map[int]int{}
	for range 3000 {
		got[Choose(all, random.IntN)]++
	}
	for i := range 3 {
		if got[i] < 850 {
			t.Errorf("%s was chosen %d of 3000 times", all[i].Agent, got[i])
		}
	}
	if got[3] > 0 {
		t.Errorf("the busier one was chosen %d times", got[3])
	}
}

// TestLoadIsNeverBelowWhatRunsHere: whatever reports say and in whichever order requests end, nothing that this relay has
// there is forgotten, and all of it is forgotten at its end.
func TestLoadIsNeverBelowWhatRunsHere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l Load
		var running []Ticket
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				running = append(running, l.Begin())
			case 1:
				if len(running) > 0 {
					i := rapid.IntRange(0, len(running)-1).Draw(t, "which")
					l.End(running[i])
					running = slices.Delete(running, i, i+1)
				}
			case 2:
				l.Report(rapid.IntRange(-3, 9).Draw(t, "running"), rapid.IntRange(-3, 9).Draw(t, "queued"))
			}
			if l.Now() < len(running) {
				t.Fatalf("%d run here, load %d", len(running), l.Now())
			}
		}
		for _, one := range running {
			l.End(one)
		}
		l.Report(0, 0)
		if l.Now() != 0 {
			t.Fatalf("nothing runs, load %d", l.Now())
		}
	})
}

func TestLoadCountsOthersWorkAndWhatWasSentSince(t *testing.T) {
	var l Load
	mine := l.Begin()
	l.Report(3, 2) // mine and four of another relay
	second := l.Begin()
	if got := l.Now(); got != 6 {
		t.Errorf("with one more: %d", got)
	}
	l.End(mine)
	if got := l.Now(); got != 5 {
		t.Errorf("with one less of those reported: %d", got)
	}
	l.End(second)
	if got := l.Now(); got != 4 {
		t.Errorf("with the others' alone: %d", got)
	}
}

func offer(agent string, o tunnel.Announcement) Offer { return Offer{agent, &o} }

func TestAgentsOfferTheirModelsTogether(t *testing.T) {
	all, problems := Join([]Offer{
		offer("b", tunnel.Announcement{Server: "vllm", Healthy: true, Models: []string{"llama3", "phi3"}, Capacity: 4, Aliases: map[string]string{"fast": "phi3"}}),
		offer("a", tunnel.Announcement{Server: "vllm", Healthy: true, Models: []string{"phi3"}, Capacity: 2, Aliases: map[string]string{"fast": "phi3", "default": "phi3"}}),
		offer("0", tunnel.Announcement{Server: "vllm", Models: []string{"qwen"}, Capacity: 2}),
	})
	if fmt.Sprint(all.Models) != "[phi3 llama3 qwen]" || all.Capacity != 8 || !all.Healthy || !maps.Equal(all.Aliases, map[string]string{"fast": "phi3", "default": "phi3"}) || len(problems) > 0 {
		t.Errorf("%+v, %q", all, problems)
	}
}

func TestContradictionsAreGivenUpAndTold(t *testing.T) {
	for name, one := range map[string]struct {
		a, b    tunnel.Announcement
		aliases string
		told    string
	}{
		"an alias for two models": {
			tunnel.Announcement{Aliases: map[string]string{"default": "phi3", "ok": "phi3"}},
			tunnel.Announcement{Aliases: map[string]string{"default": "llama3"}},
			"map[ok:phi3]", `alias "default"`,
		},
		"in another spelling": {
			tunnel.Announcement{Aliases: map[string]string{"default": "phi3"}},
			tunnel.Announcement{Aliases: map[string]string{"Default:latest": "llama3"}},
			"map[]", "until they agree",
		},
		"an alias that is the other's model": {
			tunnel.Announcement{Aliases: map[string]string{"llama3": "phi3"}},
			tunnel.Announcement{Models: []string{"Llama3:latest"}},
			"map[]", "the name means the model",
		},
		"models alike in two spellings": {
			tunnel.Announcement{Aliases: map[string]string{"default": "phi3"}},
			tunnel.Announcement{Aliases: map[string]string{"default": "phi3:latest"}},
			"", "",
		},
		"another kind of server": {
			tunnel.Announcement{Server: "ollama"},
			tunnel.Announcement{Server: "vllm", Aliases: map[string]string{"x": "y"}},
			"map[]", "never go to b",
		},
		"one model whatever it is called": {
			tunnel.Announcement{Server: "sglang", Models: []string{"phi3"}},
			tunnel.Announcement{Server: "sglang", Models: []string{"llama3"}},
			"map[]", "only agents with phi3",
		},
	} {
		one.a.Healthy, one.b.Healthy = true, true
		all, problems := Join([]Offer{offer("a", one.a), offer("b", one.b)})
		if one.aliases != "" && fmt.Sprint(all.Aliases) != one.aliases {
			t.Errorf("%s: aliases %v", name, all.Aliases)
		}
		if (one.told == "") != (len(problems) == 0) || !strings.Contains(strings.Join(problems, "\n"), one.told) {
			t.Errorf("%s: told %q", name, problems)
		}
	}
}

func TestRequestGoesWhereItIsReadAsItWasDecidedOn(t *testing.T) {
	named := func(models ...string) *modelapi.Class { return &modelapi.Class{Action: modelapi.Chat, Models: models} }
	for name, one := range map[string]struct {
		offer tunnel.Announcement
		class *modelapi.Class
		fits  bool
		has   int
	}{
		"has it":                      {tunnel.Announcement{Server: "vllm", Models: []string{"phi3", "x"}}, named("phi3"), true, 1},
		"has it not":                  {tunnel.Announcement{Server: "vllm", Models: []string{"y", "x"}}, named("phi3"), true, 0},
		"would run another":           {tunnel.Announcement{Server: "vllm", Models: []string{"y"}}, named("phi3"), false, 0},
		"another server":              {tunnel.Announcement{Server: "ollama", Models: []string{"phi3"}}, named("phi3"), false, 0},
		"Ollama's spelling":           {tunnel.Announcement{Server: "ollama", Models: []string{"library/Phi3"}}, named("phi3:latest"), true, 1},
		"an adapter of its one model": {tunnel.Announcement{Server: "sglang", Models: []string{"phi3"}}, named("phi3:ad", "phi3"), true, 1},
		"names none, has one":         {tunnel.Announcement{Server: "vllm", Models: []string{"phi3"}}, named(), false, 0},
		"a list, has one":             {tunnel.Announcement{Server: "vllm", Models: []string{"phi3"}}, &modelapi.Class{Action: modelapi.ListModels}, true, 0},
	} {
		server := one.offer.Server
		if name == "another server" {
			server = "vllm"
		}
		if fits, has := Fits(&one.offer, server, "", one.class); fits != one.fits || has != one.has {
			t.Errorf("%s: %v, %d", name, fits, has)
		}
	}
	if fits, _ := Fits(&tunnel.Announcement{Server: "vllm", Models: []string{"phi3"}}, "vllm", "phi3", &modelapi.Class{Action: modelapi.ManageModel, Models: []string{"new"}}); !fits {
		t.Error("who manages models names those that are not there yet")
	}
}
