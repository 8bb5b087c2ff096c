package modelapi

import (
	"slices"
	"strings"
	"testing"
)

// rowsByPath are the methods of each server's paths, as the data has them.
func rowsByPath(t testing.TB) map[string]map[string][]string {
	t.Helper()
	all := map[string]map[string][]string{}
	for _, r := range testRows(t) {
		if all[r.Server] == nil {
			all[r.Server] = map[string][]string{}
		}
		for _, path := range append([]string{r.Path}, r.Aliases...) {
			all[r.Server][path] = append(all[r.Server][path], r.Method...)
		}
	}
	return all
}

// inRows says whether a path is that of a row, parameters filled in.
func inRows(paths map[string][]string, method, path string) bool {
	for known, methods := range paths {
		if !slices.Contains(methods, method) {
			continue
		}
		if concrete(known) == path {
			return true
		}
		open := strings.HasSuffix(known, "/*") || strings.HasSuffix(known, ":path}") || strings.HasSuffix(known, "...}")
		if i := strings.LastIndexByte(known, '/'); open && strings.HasPrefix(path, concrete(known[:i])+"/") {
			return true
		}
		if p := parsePattern(known); p != nil {
			if _, ok := p.match(path); ok {
				return true
			}
		}
	}
	return false
}

func TestARequestToNoRowIsUnknown(t *testing.T) {
	methods := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "WEBSOCKET", "get", "", "*"}
	tried := 0
	for server, paths := range rowsByPath(t) {
		for path := range paths {
			if !strings.HasPrefix(path, "/") {
				continue
			}
			path = concrete(path)
			for _, method := range methods {
				for _, beside := range []string{path, path + "x", path + "/", path + "/x", "/x" + path, strings.ToUpper(path), "/v1" + path, strings.TrimPrefix(path, "/v1")} {
					if method == "WEBSOCKET" && beside == path {
						continue // as a method of a request line: tested below
					}
					if beside == "" || inRows(paths, method, beside) {
						continue
					}
					tried++
					in := Input{Server: server, Method: method, Path: beside, Only: "m", ContentType: "application/json", Body: []byte(`{"model":"m"}`)}
					if c, _ := Default().Classify(in); c.Action != Unknown || c.Target != "" || Default().HasRoute(in) {
						t.Errorf("%s %s %s: got %s %q", server, method, beside, c.Action, c.Target)
					}
				}
			}
			for _, method := range []string{"WEBSOCKET", "*"} {
				if c, _ := Default().Classify(Input{Server: server, Method: method, Path: path}); c.Action != Unknown {
					t.Errorf("%s %s %s: got %s", server, method, path, c.Action)
				}
			}
		}
	}
	if tried < 20_000 {
		t.Errorf("only %d requests were tried", tried)
	}
}

// Whatever the server turns out to be, it does what the union of the tables says, or the union says nothing.
func TestAutoNeverSaysOtherThanTheServerDoes(t *testing.T) {
	for server, paths := range rowsByPath(t) {
		for path, methods := range paths {
			for _, method := range methods {
				in := Input{Server: server, Method: method, Path: concrete(path), Only: "m", ContentType: "application/json", Body: []byte(`{"model":"m","prompt":"p","messages":[1],"input":"i"}`)}
				if method == "GET" || method == "HEAD" {
					in.Body, in.ContentType = nil, ""
				}
				one, _ := Default().Classify(in)
				in.Server = Auto
				if all, _ := Default().Classify(in); all.Action != one.Action && all.Action != Unknown {
					t.Errorf("%s %s %s is %s, for the union %s", server, method, path, one.Action, all.Action)
				}
			}
		}
	}
}
