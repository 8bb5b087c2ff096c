package modelapi

import (
	"bytes"
	"mime"
	"mime/multipart"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Whatever is decided on is what is forwarded: the canonical form, classified again, is of the same class.
func checkFixpoint(t *testing.T, in Input) {
	t.Helper()
	c, err := Default().Classify(in)
	if err != nil || c.Action == Unknown {
		return
	}
	again := in
	again.Path, again.Query, _ = strings.Cut(c.Target, "?")
	again.Body, again.ContentType, again.ContentEncoding, again.Aliases = c.Body, c.ContentType, "", nil
	if again.ContentType == "" {
		again.ContentType = "application/json"
	}
	d, err := Default().Verify(again)
	if err != nil {
		t.Fatalf("%q %q: its canonical form %q %q: %v", in.Path, in.Body, c.Target, c.Body, err)
	}
	same := c.Action == d.Action && c.SubAction == d.SubAction && c.Model == d.Model && slices.Equal(c.Models, d.Models) &&
		c.Egress == d.Egress && c.Stream == d.Stream && c.MaxOutput == d.MaxOutput && c.Framing == d.Framing &&
		slices.Equal(c.IDs, d.IDs) && c.Hands == d.Hands && slices.Equal(c.Also, d.Also) && slices.Equal(c.Media, d.Media) &&
		c.Choices == d.Choices && c.PromptBytes == d.PromptBytes && c.Upgrade == d.Upgrade && c.ContentType == d.ContentType
	if !same {
		t.Fatalf("%q %q: decided on %+v, forwarded %+v", in.Path, in.Body, c, d)
	}
}

func FuzzClassify(f *testing.F) {
	for _, body := range []string{
		`{"model":"ok","messages":[{"role":"user","content":"hi"}],"stream":true}`, `{"name":"A/b:c","model":""}`,
		`{"model":"a:b","lora":[{"id":0}],"session_params":{"id":"s"},"conversation":{"id":"c"},"rid":"r","abort_all":false}`,
		`{"source":"a","destination":"b"}`, `{"model":"x:cloud","keep_alive":0}`, `[1]`, `{"a":{"b":[1,2,{"c":null}]}}`,
	} {
		for _, path := range []string{"/api/chat", "/v1/chat/completions", "/api/copy", "/api/show", "/props", "/v1/models/a%3Ab", "/slots/1"} {
			f.Add("POST", path, "model=a&action=b", "ollama", []byte(body))
			f.Add("GET", path, "model=a", "", []byte(nil))
		}
	}
	f.Fuzz(func(t *testing.T, method, path, query, server string, body []byte) {
		in := Input{
			Server: server, Method: method, Path: path, Query: query, ContentType: "application/json", Body: body,
		}
		checkFixpoint(t, in)
		in.Only = "only"
		checkFixpoint(t, in)
	})
}

// FuzzForm: a form is read one way or not at all, whatever stands around and between its parts.
func FuzzForm(f *testing.F) {
	whole := testForm("x", textPart("model", "Whisper"), textPart("stream", "true"), soundPart)
	f.Add("vllm", "", formKind, whole)
	f.Add("ollama", "m", formKind, testForm("x", soundPart, textPart("prompt", "a\r\nb")))
	f.Add("tgi", "m", "multipart/form-data; boundary=\"a:b\"", testForm("a:b", soundPart))
	f.Add("llama-swap", "", formKind, testForm("x", textPart("include[]", ""), textPart("model", "m"), strings.Replace(soundPart, "speech", "a;b", 1)))
	f.Add("sglang", "a", formKind, bytes.Replace(whole, []byte("\r\n\r\n"), []byte("\r\nX: y\r\n\r\n"), 1))
	f.Fuzz(func(t *testing.T, server, only, kind string, body []byte) {
		in := Input{
			Server: server, Only: only, Method: "POST", Path: "/v1/audio/transcriptions", ContentType: kind, Body: body,
			Aliases: map[string]string{"Whisper": "other", "a": "Whisper"},
		}
		checkFixpoint(t, in)
		if c, err := Default().Classify(in); err == nil && c.Action != Unknown {
			checkOtherReader(t, c)
		}
	})
}

// checkOtherReader reads a canonical form with a parser that is not ours.
func checkOtherReader(t *testing.T, c Class) {
	t.Helper()
	_, parameters, err := mime.ParseMediaType(c.ContentType)
	if err != nil {
		t.Fatalf("%q: %v", c.ContentType, err)
	}
	form, err := multipart.NewReader(bytes.NewReader(c.Body), parameters["boundary"]).ReadForm(MaxBody)
	if err != nil {
		t.Fatalf("%q: %v", c.Body, err)
	}
	defer func() { _ = form.RemoveAll() }()
	if models := form.Value["model"]; len(models) != 1 || c.Model != models[0] || len(form.File) != 1 || len(form.File["file"]) != 1 {
		t.Fatalf("decided on %q, and another parser reads %q, %d files: %q", c.Model, models, len(form.File), c.Body)
	}
}

// FuzzEncoded: what a compressed body unfolds to is bounded, and forwarded as it was read.
func FuzzEncoded(f *testing.F) {
	plain := []byte(`{"model":"m","input":["i"],"lora_path":"x"}`)
	f.Add("gzip", gzipped(f, plain))
	f.Add("zstd", zstandard(f, plain))
	f.Add("gzip", gzipped(f, bytes.Repeat([]byte(" "), 2<<20)))
	f.Add("zstd", append(zstandard(f, plain), zstandard(f, nil)...))
	f.Fuzz(func(t *testing.T, encoding string, body []byte) {
		in := Input{
			Server: "vllm", Method: "POST", Path: "/v1/embeddings", ContentType: "application/json", ContentEncoding: encoding, Body: body,
		}
		if out, err := in.plainBody(); err == nil && len(out) > max(freeSize, maxRatio*len(body)) {
			t.Fatalf("%d bytes unfolded to %d", len(body), len(out))
		}
		checkFixpoint(t, in)
	})
}

func FuzzPath(f *testing.F) {
	for _, path := range []string{"/v1/models/a%2fb", "/v1/models/../x", "/a//b", "/%2e%2e", "/v1/models/a:b@c+d~e", "/_app/x/y"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		for _, server := range append(Servers(), Auto) {
			in := Input{Server: server, Method: "GET", Path: path}
			c, err := Default().Classify(in)
			if err != nil || c.Action == Unknown {
				continue
			}
			if strings.ContainsAny(c.Target, "%#\\;\x00") || strings.Contains(c.Target, "//") || strings.Contains(c.Target, "/../") {
				t.Fatalf("%q became %q", path, c.Target)
			}
			checkFixpoint(t, in)
		}
	})
}

func FuzzStrictJSON(f *testing.F) {
	for _, body := range []string{
		`{"a":1,"A":2}`, `{"\u0061":"\ud83d\ude00","b":[{}]}`, `"x"`, `-0.0e+10`, `{"a\\":"\"","b\"":"\\"}`, `[[[]],{"x":{}}]`, `{"ſ":1,"s":2}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		doc, err := parseJSON(body)
		if !bytes.Equal(before, body) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			return
		}
		if !jsontext.Value(body).IsValid() || !jsontext.Value(doc.data).IsValid() {
			t.Fatalf("%q was taken as %q", body, doc.data)
		}
		again, err := parseJSON(doc.data)
		if err != nil || !bytes.Equal(again.data, doc.data) {
			t.Fatalf("%q is no fixed point: %v", doc.data, err)
		}
		for _, m := range doc.members {
			if !jsontext.Value(doc.data[m.start:m.end]).IsValid() {
				t.Fatalf("member %q of %q is %q", m.name, doc.data, doc.data[m.start:m.end])
			}
		}
		if len(doc.members) > 0 {
			doc.setString(doc.members[0].name, "x\"y")
		}
		if !jsontext.Value(doc.data).IsValid() {
			t.Fatalf("after a change: %q", doc.data)
		}
	})
}

func BenchmarkClassifyChat(b *testing.B) {
	for _, size := range []int{200, 4 << 10} {
		body := []byte(`{"model":"phi3:latest","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"` +
			strings.Repeat("word ", size/5) + `"}],"stream":true,"temperature":0.7,"max_tokens":256}`)
		in := Input{Server: "ollama", Method: "POST", Path: "/v1/chat/completions", ContentType: "application/json", Body: body}
		name := map[bool]string{true: "small", false: "4KiB"}[size < 1000]
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Default().Classify(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkClassifyForm(b *testing.B) {
	sound := strings.Replace(soundPart, "RIFF", strings.Repeat("RIFFdata", 128<<10), 1)
	in := formInput("vllm", formKind, testForm("x", textPart("model", "whisper"), sound))
	b.SetBytes(int64(len(in.Body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Default().Classify(in); err != nil {
			b.Fatal(err)
		}
	}
}
