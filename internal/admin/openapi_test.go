package admin

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
)

// object keeps its names in order when it is written.
type object = map[string]any

const openapiIntro = `The relay's own API. /v1/… and /v1/admin/… are served on a stream of a session of iapctl (service "api"), and /v1/admin/… to root on the
relay's machine over its unix socket; neither over plain HTTPS. The right to each call of /v1/admin is the verb that x-iap-verb names, given by admins: in the
grants file. Questions are read strictly: an unknown field or parameter is an error. Answers may gain fields.`

// document makes the description from the tables, the types and their comments.
func document(t *testing.T) []byte {
	t.Helper()
	g := &generator{t: t, schemas: object{}, comments: comments(t)}
	paths := object{}
	add := func(pattern string, operation object) {
		method, path, _ := strings.Cut(pattern, " ")
		if paths[path] == nil {
			paths[path] = object{}
		}
		paths[path].(object)[strings.ToLower(method)] = operation
	}
	for _, r := range adminRoutes() {
		op := g.operation(r.pattern, "admin", r.summary, r.question, r.answer, r.streams)
		op["x-iap-verb"] = r.verb
		add(r.pattern, op)
	}
	for _, r := range ownRoutes() {
		add(r.pattern, g.operation(r.pattern, "own", r.summary, r.question, r.answer, false))
	}
	add("GET "+DiscoveryPath, g.operation("GET "+DiscoveryPath, "public", "What a client must know to log in", nil, reflect.TypeFor[Discovery](), false))
	add("POST "+JoinPath, g.operation("POST "+JoinPath, "public", "Enrol an agent with a join token", reflect.TypeFor[JoinRequest](), reflect.TypeFor[JoinReply](), false))
	add("GET "+OpenAPIPath, object{
		"operationId": "getOpenapiJson", "tags": []string{"own"}, "summary": "This document",
		"responses": object{"200": object{"description": "OpenAPI 3.1", "content": object{"application/json": object{"schema": object{"type": "object"}}}}},
	})
	for _, method := range []string{"GET", "POST"} {
		add(method+" /r/{resource}/{path}", frontDoorOperation(method))
	}
	g.schema(reflect.TypeFor[Error]())
	out, err := json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info":    object{"title": "iap-relay", "version": "1", "description": strings.ReplaceAll(openapiIntro, "\n", " ")},
		"servers": []object{{"url": "http://relay", "description": "the host does not matter: it is the stream or the socket that leads to the relay"}},
		"tags": []object{
			{"name": "admin", "description": "for administrators, each call by its verb"},
			{"name": "own", "description": "what a principal asks about itself"},
			{"name": "public", "description": "over plain HTTPS"},
		},
		"paths": paths,
		"components": object{
			"schemas":   g.schemas,
			"responses": object{"Error": object{"description": "A refusal", "content": object{"application/json": object{"schema": ref("Error")}}}},
		},
	}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, '\n')
}

func frontDoorOperation(method string) object {
	parameter := func(name, text string) object {
		return object{"name": name, "in": "path", "required": true, "description": text, "schema": object{"type": "string"}}
	}
	return object{
		"operationId": strings.ToLower(method) + "FrontDoor", "tags": []string{"public"}, "summary": "The model server's own API, over plain HTTPS with a bearer token or a program's key",
		"parameters": []object{parameter("resource", "name of a model resource"), parameter("path", "path of the model server's API, with its slashes")},
		"responses":  object{"default": object{"description": "the model server's answer, or a refusal in the shape of its protocol"}},
	}
}

func ref(name string) object { return object{"$ref": "#/components/schemas/" + name} }

// generator makes schemas of types.
type generator struct {
	t        *testing.T
	schemas  object
	comments map[string]string // by type, and by type.field
}

func (g *generator) operation(pattern, tag, summary string, question, answer reflect.Type, streams bool) object {
	method, path, _ := strings.Cut(pattern, " ")
	content := "application/json"
	if streams {
		content = "application/x-ndjson"
	}
	op := object{
		"operationId": operationID(method, path), "tags": []string{tag}, "summary": summary,
		"responses": object{
			"200":     object{"description": "done", "content": object{content: object{"schema": g.schema(answer)}}},
			"default": object{"$ref": "#/components/responses/Error"},
		},
	}
	var parameters []object
	if strings.Contains(path, "{id}") {
		parameters = append(parameters, object{"name": "id", "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	if question == nil {
		question = reflect.TypeFor[struct{}]()
	}
	fields, _ := g.properties(question)
	if method == http.MethodGet {
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			field := maps.Clone(fields[name].(object))
			p := object{"name": name, "in": "query", "schema": field}
			if text := field["description"]; text != nil {
				p["description"] = text
				delete(field, "description")
			}
			parameters = append(parameters, p)
		}
	} else if len(fields) > 0 {
		op["requestBody"] = object{"content": object{"application/json": object{"schema": g.schema(question)}}}
	}
	if parameters != nil {
		op["parameters"] = parameters
	}
	return op
}

// operationID is getAdminSessions for GET /v1/admin/sessions.
func operationID(method, path string) string {
	id := strings.ToLower(method)
	for _, word := range strings.FieldsFunc(path, func(r rune) bool { return strings.ContainsRune("/{}.-", r) }) {
		if word != "v1" {
			id += strings.ToUpper(word[:1]) + word[1:]
		}
	}
	return id
}

func (g *generator) schema(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case reflect.TypeFor[json.RawMessage]():
		return object{"type": "object", "description": "a record of the audit log, as it stands there"}
	case reflect.TypeFor[[]byte]():
		return object{"type": "string", "contentEncoding": "base64"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return g.schema(t.Elem())
	case reflect.Slice:
		return object{"type": "array", "items": g.schema(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": g.schema(t.Elem())}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64, reflect.Uint64, reflect.Int32, reflect.Uint32:
		return object{"type": "integer"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Struct:
		return g.component(t)
	}
	g.t.Fatalf("the API has a %s, which this test cannot describe", t)
	return nil
}

func (g *generator) component(t reflect.Type) object {
	if g.schemas[t.Name()] != nil {
		return ref(t.Name())
	}
	s := object{"type": "object"}
	g.schemas[t.Name()] = s // before its fields: they may lead back here
	fields, required := g.properties(t)
	if s["properties"] = fields; len(required) > 0 {
		s["required"] = required
	}
	if text := g.comments[t.Name()]; text != "" {
		s["description"] = text
	}
	return ref(t.Name())
}

// properties are the fields of a struct as JSON has them, and those always there.
func (g *generator) properties(t reflect.Type) (object, []string) {
	all, required := object{}, []string{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			inner, more := g.properties(f.Type)
			maps.Copy(all, inner)
			required = append(required, more...)
			continue
		case name == "-" || !f.IsExported():
			continue
		case name == "":
			g.t.Errorf("%s.%s has no name in JSON", t.Name(), f.Name)
			continue
		}
		p := g.schema(f.Type)
		if text := g.comments[t.Name()+"."+f.Name]; text != "" {
			p["description"] = text
		}
		all[name] = p
		if options == "" {
			required = append(required, name)
		}
	}
	slices.Sort(required)
	return all, required
}

// comments reads what stands beside types and fields in this package's source.
func comments(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			general, isGeneral := decl.(*ast.GenDecl)
			if !isGeneral || general.Tok != token.TYPE {
				continue
			}
			for _, spec := range general.Specs {
				one := spec.(*ast.TypeSpec)
				all[one.Name.Name] = words(general.Doc)
				body, isStruct := one.Type.(*ast.StructType)
				if !isStruct {
					continue
				}
				for _, f := range body.Fields.List {
					for _, field := range f.Names {
						all[one.Name.Name+"."+field.Name] = strings.TrimSpace(words(f.Doc) + " " + words(f.Comment))
					}
				}
			}
		}
	}
	return all
}

func words(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }

func TestTheDescriptionIsThatOfTheCode(t *testing.T) {
	want := document(t)
	if bytes.Equal(OpenAPI(), want) {
		return
	}
	if os.Getenv("UPDATE_OPENAPI") == "" {
		t.Fatal("openapi.json differs from the code; write it anew with UPDATE_OPENAPI=1 go test -run TestTheDescription ./internal/admin")
	}
	if err := os.WriteFile("openapi.json", want, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestTheDescriptionIsValidOpenAPI(t *testing.T) {
	d, err := libopenapi.NewDocument(OpenAPI())
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(d)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if ok, problems := v.ValidateDocument(); !ok {
		for _, p := range problems {
			t.Errorf("%s: %s", p.Message, p.Reason)
		}
	}
}

func TestTheDescriptionIsServedByBothWaysIn(t *testing.T) {
	for _, h := range []http.Handler{UserHandler(&backend{}, &backend{}, &gate{}), AdminHandler(&backend{}, &gate{})} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, OpenAPIPath, nil))
		if w.Code != http.StatusOK || !bytes.Equal(w.Body.Bytes(), OpenAPI()) {
			t.Errorf("%d, %d bytes", w.Code, w.Body.Len())
		}
	}
}
