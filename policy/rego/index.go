package rego

import (
	"strings"

	"iap/policy"
)

// grantsData turns the grants into data.grants, in plain JSON values:
//
//	list       the grants in file order, in the form that the built-in policy reads
//	by         leads from what names a principal to a place in selectors
//	selectors  for each such name its grants, as places in list: all of them;
//	           named, those of a resource by its exact name; open, those that
//	           name resources by glob or label
//
// So an evaluation looks only at the grants of whoever asks, and of these only at
// those that can mean the resource. The index nests issuer, name and value instead of
// joining them into one string: no group or claim can be spelled so that it
// reads like another.
func grantsData(g *policy.Grants) map[string]any {
	x := indexer{places: map[policy.Selector]int{}, by: map[string]any{}}
	list := make([]any, len(g.List))
	for i, grant := range g.List {
		list[i] = grantData(grant)
		for _, s := range grant.To {
			x.add(s, i, grant.Resources)
		}
	}
	return map[string]any{"list": list, "by": x.by, "selectors": x.selectors}
}

// indexer builds the part of data.grants that finds grants.
type indexer struct {
	places    map[policy.Selector]int
	by        map[string]any
	selectors []any
}

func (x *indexer) add(s policy.Selector, grant int, resources []policy.ResourcePattern) {
	place, known := x.places[s]
	if !known {
		place = len(x.selectors)
		x.places[s] = place
		x.selectors = append(x.selectors, map[string]any{"all": []any{}, "named": map[string]any{}, "open": []any{}})
		setAt(x.by, place, selectorPath(s))
	}
	entry := x.selectors[place].(map[string]any)
	appendTo(entry, "all", grant)
	open := false
	for _, r := range resources {
		if r.LabelKey != "" || policy.IsGlob(r.Name) {
			open = true
			continue
		}
		appendTo(entry["named"].(map[string]any), r.Name, grant)
	}
	if open {
		appendTo(entry, "open", grant)
	}
}

func appendTo(node map[string]any, key string, grant int) {
	list, _ := node[key].([]any)
	node[key] = append(list, grant)
}

func selectorPath(s policy.Selector) []string {
	switch s.Kind {
	case policy.SelectAny:
		return []string{s.Kind, s.Issuer}
	case policy.SelectClaim:
		return []string{s.Kind, s.Issuer, s.Name, s.Value}
	}
	return []string{s.Kind, s.Issuer, s.Name}
}

// setAt sets the value at the end of path, which it makes.
func setAt(node map[string]any, value int, path []string) {
	last := len(path) - 1
	for _, step := range path[:last] {
		next, ok := node[step].(map[string]any)
		if !ok {
			next = map[string]any{}
			node[step] = next
		}
		node = next
	}
	node[path[last]] = value
}

// grantData holds no key for what a grant leaves out: the policy asks for absence.
func grantData(g policy.Grant) map[string]any {
	data := map[string]any{
		"name":      g.Name,
		"resources": resourcesData(g.Resources),
		"actions":   nameSet(g.Actions),
		"limits":    allLimitsData(g.Limits),
		"priority":  g.Priority,
	}
	if len(g.Models) > 0 {
		data["models"] = modelsData(g.Models)
	}
	if g.Media != nil {
		data["media"] = nameSet(g.Media)
	}
	if g.Keys.Allowed() {
		data["keys"] = map[string]any{keysMaxTTL: int64(g.Keys.MaxTTL)}
	}
	if g.Egress {
		data["egress"] = true
	}
	if g.Record {
		data["record"] = true
	}
	if !g.Require.IsZero() {
		data["require"] = requireData(g.Require)
	}
	return data
}

func resourcesData(patterns []policy.ResourcePattern) map[string]any {
	var names []string
	labels := []any{}
	for _, p := range patterns {
		if p.LabelKey == "" {
			names = append(names, p.Name)
			continue
		}
		labels = append(labels, map[string]any{"key": p.LabelKey, "value": p.LabelValue})
	}
	data := namesData(names)
	data["labels"] = labels
	return data
}

func modelsData(patterns []policy.ModelPattern) map[string]any {
	var names []string
	for _, p := range patterns {
		names = append(names, p.Names()...)
	}
	return namesData(names)
}

// namesData sorts names and globs by the cheapest way to match them.
func namesData(list []string) map[string]any {
	names, prefixes, globs := map[string]any{}, []any{}, []any{}
	for _, name := range list {
		prefix, trailing := strings.CutSuffix(name, "*")
		switch {
		case !policy.IsGlob(name):
			names[name] = true
		case trailing && !policy.IsGlob(prefix):
			prefixes = append(prefixes, prefix)
		default:
			globs = append(globs, policy.GlobExpression(name))
		}
	}
	return map[string]any{"names": names, "prefixes": prefixes, "globs": globs}
}

func nameSet(names []string) map[string]any {
	set := make(map[string]any, len(names))
	for _, name := range names {
		set[name] = true
	}
	return set
}

func requireData(r policy.Require) map[string]any {
	data := map[string]any{}
	if r.MFA != policy.MFANotRequired {
		data["mfa"] = r.MFA
	}
	if len(r.ACR) > 0 {
		data["acr"] = textList(r.ACR)
	}
	if r.MaxAuthAge > 0 {
		data["max_auth_age"] = int64(r.MaxAuthAge)
	}
	if r.Binding != "" {
		data["binding"] = r.Binding
	}
	if len(r.Claims) > 0 {
		data["claims"] = claimsData(r.Claims)
	}
	return data
}

func claimsData(all []policy.RequiredClaim) []any {
	list := make([]any, len(all))
	for i, c := range all {
		list[i] = map[string]any{"issuer": c.Issuer, "name": c.Name, "values": nameSet(c.Values)}
	}
	return list
}

func textList(list []string) []any {
	out := make([]any, len(list))
	for i, text := range list {
		out[i] = text
	}
	return out
}

func allLimitsData(all []policy.Limits) []any {
	list := make([]any, len(all))
	for i, l := range all {
		list[i] = limitsData(l)
	}
	return list
}

func limitsData(l policy.Limits) map[string]any {
	data := map[string]any{}
	for key, rates := range map[string][]policy.Rate{limitRequests: l.Requests, limitTokens: l.Tokens} {
		if len(rates) == 0 {
			continue
		}
		list := make([]any, len(rates))
		for i, r := range rates {
			list[i] = r.String()
		}
		data[key] = list
	}
	for key, n := range map[string]int{limitConcurrent: l.Concurrent, limitMaxOutputTokens: l.MaxOutputTokens} {
		if n > 0 {
			data[key] = n
		}
	}
	for key, word := range map[string]string{limitPer: l.Per, limitMode: l.Mode, limitContact: l.Contact} {
		if word != "" {
			data[key] = word
		}
	}
	return data
}
