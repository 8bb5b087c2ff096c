package modelapi

// union builds the routes that hold whoever answers: those on which every server that has them agrees. A route on
// which two differ is one of an unknown action, which is always denied.
func union(all map[string]*routes, servers []string) *routes {
	out := &routes{literal: map[string]*route{}}
	for _, name := range servers {
		for key, r := range all[name].literal {
			if known := out.literal[key]; known != nil {
				r = agree(known, r)
			}
			out.literal[key] = r
		}
		// Patterns that overlap are compared when a path is matched.
		out.patterns = append(out.patterns, all[name].patterns...)
	}
	return out
}

// agree merges two routes of one method and path, with the stricter reading of each detail.
func agree(a, b *route) *route {
	merged := *a
	if a.action != b.action || a.place != b.place || a.streamByRule != b.streamByRule {
		merged.action, merged.sub, merged.place = Unknown, "", nowhere
	}
	if a.sub != b.sub {
		merged.sub = ""
	}
	if a.protocol != b.protocol {
		merged.protocol = OpenAI
	}
	merged.streams = a.streams || b.streams
	merged.ollamaNames = a.ollamaNames && b.ollamaNames
	merged.ignoresName = a.ignoresName && b.ignoresName
	merged.emptyLoads = a.emptyLoads || b.emptyLoads
	return &merged
}

// find returns the route of a method and path, and the path's parameters; nil if there is none.
func (rs *routes) find(method, path string) (*route, map[string]string) {
	if r := rs.literal[method+" "+path]; r != nil {
		return r, nil
	}
	var found *route
	var values map[string]string
	for _, r := range rs.patterns {
		if r.method != method {
			continue
		}
		v, ok := r.pattern.match(path)
		if !ok {
			continue
		}
		if found == nil {
			found, values = r, v
			continue
		}
		merged := agree(found, r)
		// Of two patterns the one that takes fewer paths has the names of the parameters.
		if found.pattern.open && !r.pattern.open {
			merged.pattern, merged.path, values = r.pattern, r.path, v
		}
		found = merged
	}
	return found, values
}

// routesOf returns a server's routes; nil if they are not switched on.
func (t *Table) routesOf(server string) *routes {
	if server == "" {
		server = Auto
	}
	return t.servers[server]
}

// Knows says whether the routes of a server are switched on. "" and "auto" always are.
func (t *Table) Knows(server string) bool { return t.routesOf(server) != nil }
