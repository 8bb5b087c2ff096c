package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	fileName = regexp.MustCompile(`[a-z0-9_]+\.go\b`)
	onSystem = regexp.MustCompile(`_(linux|unix|windows|other)\.go$`)
)

// A doc.go with a heading "Rooms" is the package's table of contents: each file is in it, and nothing else is.
func TestRoomsListEveryFile(t *testing.T) {
	lists := 0
	for _, p := range packages(t) {
		data, err := os.ReadFile(filepath.Join(p.Dir, "doc.go"))
		if err != nil || !strings.Contains(string(data), "// # Rooms\n") {
			continue
		}
		lists++
		listed := map[string]bool{"doc.go": true}
		for _, name := range fileName.FindAllString(string(data), -1) {
			listed[name] = true
		}
		there := map[string]bool{"doc.go": true}
		files, err := filepath.Glob(filepath.Join(p.Dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if name := filepath.Base(file); !strings.HasSuffix(name, "_test.go") {
				there[onSystem.ReplaceAllString(name, ".go")] = true
			}
		}
		for name := range there {
			if !listed[name] {
				t.Errorf("%s: doc.go does not say what is in %s", p.ImportPath, name)
			}
		}
		for name := range listed {
			if !there[name] {
				t.Errorf("%s: doc.go speaks of %s, which is not there", p.ImportPath, name)
			}
		}
	}
	if lists == 0 {
		t.Error("no package lists its rooms")
	}
}
