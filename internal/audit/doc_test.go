package audit

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// The schema in doc.go, which docs/audit.md links, names every field that is written.
func TestSchemaIsDocumentedFieldByField(t *testing.T) {
	data, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, schema, _ := strings.Cut(string(data), "# Schema, version 1")
	schema, _, _ = strings.Cut(schema, "// A subject event stands")
	fields := 0
	for f := range reflect.TypeFor[Event]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields++
		if !regexp.MustCompile(`(?m)^//\t(\S+ )*` + name + `\b`).MatchString(schema) {
			t.Errorf("doc.go does not say what %s is", name)
		}
	}
	if fields < 30 {
		t.Fatalf("%d fields are written", fields)
	}
}

// docs/audit.md names every file beside the segments and links the schema.
func TestPageNamesEveryFile(t *testing.T) {
	page, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{HashSuffix, CheckpointSuffix, KeysFile, ExpiredFile, tornSuffix, wrongSuffix, "internal/audit/doc.go", ReasonExpired} {
		if !strings.Contains(string(page), name) {
			t.Errorf("docs/audit.md does not speak of %s", name)
		}
	}
}
