package fleet

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"iap/internal/modelapi"
	"iap/tunnel"
)

// Offer is what one agent announced of a resource. The announcement is not
// changed.
type Offer struct {
	Agent string
	*tunnel.Announcement
}

// Join makes one announcement of all offers, and says what is wrong with them
// together. Its Server is that of the first; its models begin with the first
// one's; its capacity is the sum, 0 if somebody has no bound. Offers of another
// kind of server add nothing: Fits refuses them requests.
func Join(offers []Offer) (tunnel.Announcement, []string) {
	if len(offers) == 0 {
		return tunnel.Announcement{}, nil
	}
	offers = slices.Clone(offers)
	slices.SortFunc(offers, before)
	all := *offers[0].Announcement
	if len(offers) == 1 {
		return all, nil
	}
	alike, problems := sameServer(offers)
	all.Models = unionOf(alike)
	all.Capacity = 0
	if !slices.ContainsFunc(alike, func(o Offer) bool { return o.Capacity == 0 }) {
		for _, o := range alike {
			all.Capacity += o.Capacity
		}
	}
	var contradicted []string
	all.Aliases, contradicted = aliasesOf(alike)
	problems = append(problems, contradicted...)
	if only := modelapi.OnlyModel(all.Server, all.Models); only != "" {
		for _, o := range alike[1:] {
			if len(o.Models) > 0 && o.Models[0] != only {
				problems = append(problems, fmt.Sprintf("agents %s and %s have a %s server that takes any name for its one model, and these models differ (%s, %s): only agents with %s get requests",
					alike[0].Agent, o.Agent, all.Server, only, o.Models[0], only))
			}
		}
	}
	return all, problems
}

// before orders offers: who can serve first, known servers before unknown ones,
// then by id, so that each request is read the same way.
func before(a, b Offer) int {
	if a.Healthy != b.Healthy {
		if a.Healthy {
			return -1
		}
		return 1
	}
	if (a.Server == "") != (b.Server == "") {
		if a.Server != "" {
			return -1
		}
		return 1
	}
	return strings.Compare(a.Agent, b.Agent)
}

// sameServer are the offers with the first one's kind of server.
func sameServer(offers []Offer) (alike []Offer, problems []string) {
	for _, o := range offers {
		switch {
		case o.Server == offers[0].Server:
			alike = append(alike, o)
		case o.Server != "": // "" is not known yet
			problems = append(problems, fmt.Sprintf("agent %s has a %s server and agent %s a %s one: requests are read for %[4]s and never go to %[1]s",
				o.Agent, o.Server, offers[0].Agent, offers[0].Server))
		}
	}
	return alike, problems
}

func unionOf(offers []Offer) []string {
	var union []string
	seen := map[string]bool{}
	for _, o := range offers {
		for _, m := range o.Models {
			if !seen[m] {
				seen[m] = true
				union = append(union, m)
			}
		}
	}
	return union
}

// aliasesOf are the aliases of all on which nobody contradicts: neither by an
// alias of that name for another model, nor by a model of that name. Of two
// spellings that some server takes for one, one is enough to contradict.
func aliasesOf(offers []Offer) (map[string]string, []string) {
	type claim struct{ agent, alias, model string }
	claims := map[string][]claim{}
	models := map[string]string{} // folded name → an agent that has it
	for _, o := range offers {
		for alias, model := range o.Aliases {
			claims[fold(alias)] = append(claims[fold(alias)], claim{o.Agent, alias, model})
		}
		for _, m := range o.Models {
			if models[fold(m)] == "" {
				models[fold(m)] = o.Agent
			}
		}
	}
	agreed := map[string]string{}
	var problems []string
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		first := claims[name][0]
		other := slices.IndexFunc(claims[name], func(c claim) bool { return fold(c.model) != fold(first.model) })
		switch holder := models[name]; {
		case other >= 0:
			second := claims[name][other]
			problems = append(problems, fmt.Sprintf("alias %q is %s at agent %s and %s at agent %s: it is not served until they agree",
				first.alias, first.model, first.agent, second.model, second.agent))
		case holder != "" && holder != first.agent && fold(first.model) != name:
			problems = append(problems, fmt.Sprintf("alias %q of agent %s is %s, and agent %s has a model of that name: the alias is not served, the name means the model",
				first.alias, first.agent, first.model, holder))
		default:
			for _, c := range claims[name] {
				agreed[c.alias] = c.model
			}
		}
	}
	if len(agreed) == 0 {
		return nil, problems
	}
	return agreed, problems
}

// fold brings spellings together that some server takes for one.
func fold(name string) string {
	return strings.TrimSuffix(strings.ToLower(name), ":latest")
}

// Fits says whether an agent reads a request as the relay did, which classified
// it for server and its only model: whether it has that kind of server and, if
// it has one model too, the same or the one that is named. How many of the models
// it says it has comes second.
func Fits(o *tunnel.Announcement, server, only string, class *modelapi.Class) (fits bool, has int) {
	if o.Server != server {
		return false, 0
	}
	if own := modelapi.OnlyModel(o.Server, o.Models); own != "" && own != only && class.Action != modelapi.ListModels && class.Action != modelapi.Health &&
		!slices.Contains(class.Models, own) {
		return false, 0
	}
	for _, model := range class.Models {
		if slices.ContainsFunc(o.Models, func(m string) bool { return m == model || isSpelling(o, m, model) }) {
			has++
		}
	}
	return true, has
}

// isSpelling says whether an announced name is the canonical one: Ollama's carry
// a tag and have no case.
func isSpelling(o *tunnel.Announcement, announced, canonical string) bool {
	if o.Server != modelapi.ServerOllama {
		return false
	}
	name, _, err := modelapi.MeantModel(o.Server, "", nil, announced)
	return err == nil && name == canonical
}
