package modelapi

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// testForm joins parts, each a header and a value, by a boundary.
func testForm(boundary string, parts ...string) []byte {
	return []byte("--" + boundary + "\r\n" + strings.Join(parts, "\r\n--"+boundary+"\r\n") + "\r\n--" + boundary + "--\r\n")
}

func textPart(name, value string) string {
	return "Content-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value
}

const soundPart = "Content-Disposition: form-data; name=\"file\"; filename=\"speech.wav\"\r\nContent-Type: audio/wav\r\n\r\nRIFF\x00\r\n--\xff"

func formInput(server, kind string, body []byte) Input {
	in := Input{Server: server, Method: "POST", Path: "/v1/audio/transcriptions", ContentType: kind, Body: body}
	if ignoresNames(server) {
		in.Only = "whisper"
	}
	return in
}

const formKind = "multipart/form-data; boundary=x"

func TestFormsAreForwardedAsTheyWereRead(t *testing.T) {
	body := testForm("x", textPart("model", "Whisper"), textPart("language", "de"), textPart("timestamp_granularities[]", "word"),
		textPart("timestamp_granularities[]", "segment"), soundPart)
	in := formInput("ollama", formKind, body)
	in.Query = "model=secret"
	c, err := Default().Classify(in)
	if err != nil || c.Model != "whisper:latest" || c.Action != Transcribe || c.Target != "/v1/audio/transcriptions" || c.Stream {
		t.Fatalf("got %+v, %v", c, err)
	}
	boundary, ok := strings.CutPrefix(c.ContentType, "multipart/form-data; boundary=")
	want := testForm(boundary, textPart("model", "whisper:latest"), textPart("language", "de"), textPart("timestamp_granularities[]", "word"),
		textPart("timestamp_granularities[]", "segment"), strings.Replace(soundPart, "speech.wav", "audio.wav", 1))
	if !ok || !bytes.Equal(c.Body, want) || boundary == "x" {
		t.Errorf("got  %q\nwant %q", c.Body, want)
	}
	again := formInput("ollama", c.ContentType, c.Body)
	if d, err := Default().Verify(again); err != nil || d.Model != c.Model || d.ContentType != c.ContentType {
		t.Errorf("the canonical form: %v", err)
	}
	again.ContentType += "; charset=utf-8"
	if _, err := Default().Verify(again); err == nil {
		t.Error("another content type is taken for the canonical one")
	}
	if _, err := Default().Verify(formInput("ollama", formKind, body)); code(err) != "not_canonical" {
		t.Errorf("the caller's form: %v", err)
	}
}

func TestFormsThatTwoParsersReadDifferentlyAreRefused(t *testing.T) {
	model := textPart("model", "whisper")
	for name, try := range map[string]struct {
		kind, want string
		body       []byte
	}{
		"two models":            {formKind, "form_duplicate_name", testForm("x", model, textPart("model", "secret"), soundPart)},
		"two files":             {formKind, "form_duplicate_name", testForm("x", model, soundPart, soundPart)},
		"another case":          {formKind, "field_unknown", testForm("x", model, textPart("MODEL", "secret"), soundPart)},
		"unknown field":         {formKind, "field_unknown", testForm("x", model, textPart("lora", "[]"), soundPart)},
		"no file":               {formKind, "form_invalid", testForm("x", model)},
		"no model":              {formKind, "model_missing", testForm("x", soundPart)},
		"empty model":           {formKind, "model_invalid", testForm("x", textPart("model", ""), soundPart)},
		"model as file":         {formKind, "form_invalid", testForm("x", "Content-Disposition: form-data; name=\"model\"; filename=\"m\"\r\n\r\nwhisper", soundPart)},
		"file as text":          {formKind, "form_invalid", testForm("x", model, textPart("file", "RIFF"))},
		"preamble":              {formKind, "form_invalid", append([]byte("hello\r\n"), testForm("x", model, soundPart)...)},
		"epilogue":              {formKind, "form_invalid", append(testForm("x", model, soundPart), "more"...)},
		"breaks off":            {formKind, "form_invalid", bytes.TrimSuffix(testForm("x", model, soundPart), []byte("--\r\n"))},
		"longer boundary":       {formKind, "form_invalid", testForm("x", model, strings.Replace(soundPart, "--\xff", "--xy", 1))},
		"bare line feeds":       {formKind, "form_invalid", bytes.ReplaceAll(testForm("x", model, soundPart), []byte("\r\n"), []byte("\n"))},
		"folded header":         {formKind, "form_invalid", testForm("x", "Content-Disposition: form-data;\r\n name=\"model\"\r\n\r\nwhisper", soundPart)},
		"two dispositions":      {formKind, "form_invalid", testForm("x", "Content-Disposition: form-data; name=\"language\"\r\n"+model, soundPart)},
		"two names":             {formKind, "form_invalid", testForm("x", "Content-Disposition: form-data; name=\"language\"; name=\"model\"\r\n\r\nwhisper", soundPart)},
		"an escaped quote":      {formKind, "form_invalid", testForm("x", "Content-Disposition: form-data; name=\"mo\\\"del\"\r\n\r\nwhisper", soundPart)},
		"name in parts":         {formKind, "form_invalid", testForm("x", "Content-Disposition: form-data; name*0=\"mo\"; name*1=\"del\"\r\n\r\nwhisper", soundPart)},
		"extended name":         {formKind, "form_invalid", testForm("x", "Content-Disposition: form-data; name*=utf-8''model\r\n\r\nwhisper", soundPart)},
		"half a quote":          {formKind, "form_invalid", testForm("x", "Content-Disposition: form-data; name=\"model\r\n\r\nwhisper", soundPart)},
		"text behind a quote":   {formKind, "form_invalid", testForm("x", "Content-Disposition: form-data; name=\"model\"x\r\n\r\nwhisper", soundPart)},
		"attachment":            {formKind, "form_invalid", testForm("x", "Content-Disposition: attachment; name=\"model\"\r\n\r\nwhisper", soundPart)},
		"no disposition":        {formKind, "form_invalid", testForm("x", "Content-Type: text/plain\r\n\r\nwhisper", soundPart)},
		"no header":             {formKind, "form_invalid", testForm("x", "\r\n\r\nwhisper", soundPart)},
		"space before colon":    {formKind, "form_invalid", testForm("x", "Content-Disposition : form-data; name=\"model\"\r\n\r\nwhisper", soundPart)},
		"base64 part":           {formKind, "form_invalid", testForm("x", "Content-Transfer-Encoding: base64\r\n"+textPart("model", "d2hpc3Blcg=="), soundPart)},
		"text that is none":     {formKind, "form_invalid", testForm("x", model, textPart("prompt", "\xff"), soundPart)},
		"text with NUL":         {formKind, "form_invalid", testForm("x", model, textPart("prompt", "a\x00b"), soundPart)},
		"long text":             {formKind, "form_invalid", testForm("x", model, textPart("prompt", strings.Repeat("a", maxTextField+1)), soundPart)},
		"long header":           {formKind, "form_invalid", testForm("x", "X-A: "+strings.Repeat("a", maxPartHeader)+"\r\n"+model, soundPart)},
		"many parts":            {formKind, "form_invalid", testForm("x", append(slices.Repeat([]string{textPart("include[]", "a")}, maxParts), soundPart)...)},
		"stream of another":     {formKind, "field_invalid", testForm("x", model, textPart("stream", "1"), soundPart)},
		"nothing":               {formKind, "form_invalid", nil},
		"no boundary":           {"multipart/form-data", "form_invalid", testForm("x", model, soundPart)},
		"two boundaries":        {formKind + "; boundary=y", "content_type", testForm("x", model, soundPart)},
		"boundary and more":     {formKind + "; charset=utf-8", "form_invalid", testForm("x", model, soundPart)},
		"boundary with a space": {"multipart/form-data; boundary=\"x \"", "form_invalid", testForm("x ", model, soundPart)},
		"long boundary":         {"multipart/form-data; boundary=" + strings.Repeat("x", 71), "form_invalid", testForm(strings.Repeat("x", 71), model, soundPart)},
		"mixed":                 {"multipart/mixed; boundary=x", "content_type", testForm("x", model, soundPart)},
		"JSON":                  {"application/json", "content_type", []byte(`{"model":"whisper","file":"x"}`)},
		"no type":               {"", "content_type", testForm("x", model, soundPart)},
	} {
		c, err := Default().Classify(formInput("vllm", try.kind, try.body))
		if code(err) != try.want || c.Body != nil || c.Action != Transcribe {
			t.Errorf("%s: got %s, %v; want %s", name, c.Action, err, try.want)
		}
	}
}

func TestPartsThatClientsReallySendAreRead(t *testing.T) {
	for name, part := range map[string]string{
		"browser":   "Content-Disposition: form-data; name=\"file\"; filename=\"../../etc/passwd\"\r\nContent-Type: audio/webm;codecs=opus\r\n\r\nx",
		"requests":  "Content-Disposition: form-data; name=\"file\"; filename*=utf-8''%C3%A4.mp3\r\n\r\nx",
		"curl":      "content-disposition: form-data; name=\"file\"; filename=\"a b.M4A\"\r\nContent-Type: application/octet-stream\r\n\r\nx",
		"bare word": "Content-Disposition: form-data; name=file; filename=a.flac;\r\nContent-Transfer-Encoding: binary\r\nContent-Length: 1\r\n\r\nx",
	} {
		c, err := Default().Classify(formInput("vllm", formKind, testForm("x", textPart("model", "whisper"), part, textPart("stream", "true"))))
		if err != nil || !c.Stream || c.Framing != SSE || strings.Contains(string(c.Body), "passwd") {
			t.Errorf("%s: %q, %v", name, c.Body, err)
		}
	}
}

func TestTheOnlyModelIsWrittenIntoAForm(t *testing.T) {
	for _, parts := range [][]string{{soundPart}, {soundPart, textPart("model", "gpt-4o-transcribe")}} {
		c, err := Default().Classify(formInput("sglang", formKind, testForm("x", parts...)))
		if err != nil || c.Model != "whisper" || !strings.Contains(string(c.Body), textPart("model", "whisper")) || strings.Contains(string(c.Body), "gpt") {
			t.Errorf("got %q %q, %v", c.Model, c.Body, err)
		}
	}
}

func TestFormsPassWhereSoundIsDueAndNowhereElse(t *testing.T) {
	for _, path := range []string{"/completion", "/v1/chat/completions", "/v1/embeddings", "/models/load"} {
		in := formInput("llama.cpp", formKind, testForm("x", textPart("prompt", "p"), textPart("model", "secret")))
		in.Path = path
		if _, err := Default().Classify(in); code(err) != "content_type" {
			t.Errorf("%s: %v", path, err)
		}
	}
}
