package archtest

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	maxFileLines = 500 // a file that needs more has a second subject
	maxMainLines = 60  // main is an adapter
	maxFuncLines = 100 // nine in ten stay under 40; beyond this none is readable
)

func TestFilesAndFunctionsStayReadable(t *testing.T) {
	for _, p := range packages(t) {
		for _, name := range p.GoFiles {
			file := filepath.Join(p.Dir, name)
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			lines := bytes.Count(data, []byte("\n"))
			if lines > maxFileLines {
				t.Errorf("%s has %d lines", file, lines)
			}
			if name == "main.go" && strings.Contains(p.ImportPath, "/cmd/") && lines > maxMainLines {
				t.Errorf("%s has %d lines: main is an adapter", file, lines)
			}
			checkFunctions(t, file, data)
		}
	}
}

func checkFunctions(t *testing.T, file string, data []byte) {
	t.Helper()
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, data, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range parsed.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if f.Recv == nil && f.Name.Name == "init" {
			t.Errorf("%s: init functions hide work and order", set.Position(f.Pos()))
		}
		if n := set.Position(f.End()).Line - set.Position(f.Pos()).Line; n > maxFuncLines {
			t.Errorf("%s: %s has %d lines", set.Position(f.Pos()), f.Name.Name, n)
		}
	}
}
