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
