package modelapi

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"mime"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds of a form.
const (
	maxParts      = 32
	maxPartHeader = 2 << 10
	maxTextField  = 64 << 10 // a prompt for a transcription
	maxBoundary   = 70       // RFC 2046
)

// soundPerText is how many bytes of a sound file weigh as much as one byte of text: a second is some 32,000 bytes as
// plain samples, and some fifty tokens to a model that hears it.
const soundPerText = 160

// formField is one part of a form, as it is read and as it is written.
type formField struct {
	name  string
	file  string // its name, if it is a file
	kind  string // its content type, if it is a file
	value []byte
}

// readForm reads the form of a route that takes sound, under every rule on which two parsers could differ, and writes
// it anew: one spelling of its parts, and a boundary of ours that their content fixes.
func (q *request) readForm(body []byte) error {
	boundary, err := formBoundary(q.in.ContentType)
	if err != nil {
		return err
	}
	fields, err := parseForm(body, boundary)
	if err != nil {
		return err
	}
	if err := checkForm(fields); err != nil {
		return err
	}
	for i := range fields {
		if err := q.readField(&fields[i]); err != nil {
			return err
		}
	}
	if fields, err = q.nameFormModel(fields); err != nil {
		return err
	}
	q.class.Choices, q.class.Media = 1, []string{"audio"}
	return q.writeForm(fields)
}

// formBoundary wants the one type under which a body is a form.
func formBoundary(header string) (string, error) {
	kind, parameters, err := mime.ParseMediaType(header)
	if err != nil || kind != "multipart/form-data" {
		return "", &Error{415, "content_type", "this route takes a body of Content-Type: multipart/form-data only"}
	}
	boundary := parameters["boundary"]
	if len(parameters) != 1 || boundary == "" || len(boundary) > maxBoundary || strings.ContainsFunc(boundary, notBoundary) {
		return "", errForm("has no plain boundary")
	}
	return boundary, nil
}

func notBoundary(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return false
	}
	return !strings.ContainsRune("'()+_,-./:=?", r)
}

// parseForm cuts a form into its parts. There is nothing before the first delimiter and nothing behind the last, and
// the delimiter stands nowhere else.
func parseForm(body []byte, boundary string) ([]formField, error) {
	delimiter := []byte("\r\n--" + boundary)
	rest, ok := bytes.CutPrefix(body, delimiter[2:])
	if !ok {
		return nil, errForm("does not begin with its boundary")
	}
	var fields []formField
	for {
		if end, last := bytes.CutPrefix(rest, []byte("--")); last {
			if len(end) > 0 && string(end) != "\r\n" {
				return nil, errForm("goes on behind its end")
			}
			return fields, nil
		}
		if rest, ok = bytes.CutPrefix(rest, []byte("\r\n")); !ok {
			return nil, errForm("has its boundary where none can stand")
		}
		if len(fields) == maxParts {
			return nil, errForm("has more than 32 parts")
		}
		part, after, ok := bytes.Cut(rest, delimiter)
		if !ok {
			return nil, errForm("breaks off")
		}
		field, err := parsePart(part)
		if err != nil {
			return nil, err
		}
		fields, rest = append(fields, field), after
	}
}

func parsePart(part []byte) (formField, error) {
	head, value, ok := bytes.Cut(part, []byte("\r\n\r\n"))
	if !ok || len(head) > maxPartHeader {
		return formField{}, errForm("has a part without a header of its own, or with too long a one")
	}
	f := formField{value: value}
	var seen []string
	for line := range strings.SplitSeq(string(head), "\r\n") {
		name, text, ok := strings.Cut(line, ":")
		name, text = strings.ToLower(name), strings.Trim(text, " \t")
		if !ok || strings.ContainsAny(name, " \t") || !plainText(text) || slices.Contains(seen, name) {
			return f, errForm("has a part whose header can be read in two ways")
		}
		seen = append(seen, name)
		if err := f.header(name, text); err != nil {
			return f, err
		}
	}
	if f.name == "" {
		return f, errForm("has a part without a name")
	}
	return f, nil
}

// header reads one line of a part's header. What matters to nobody is left out.
func (f *formField) header(name, text string) error {
	switch name {
	case "content-disposition":
		return f.disposition(text)
	case "content-type":
		f.kind = text
	case "content-transfer-encoding":
		if !slices.Contains([]string{"binary", "7bit", "8bit"}, strings.ToLower(text)) {
			return errForm("has a part in an encoding of its own; send it plain")
		}
	}
	return nil
}

// disposition reads `form-data; name="…"; filename="…"` in the one spelling that all parsers read alike: in quotes, or
// a plain word; no escapes, no continuations, nothing twice.
func (f *formField) disposition(text string) error {
	kind, rest, _ := strings.Cut(text, ";")
	if !strings.EqualFold(strings.TrimSpace(kind), "form-data") {
		return errForm("has a part that is no form-data")
	}
	for rest != "" {
		key, after, _ := strings.Cut(strings.TrimLeft(rest, " \t"), "=")
		value, behind, ok := cutValue(after)
		if !ok {
			return errDisposition()
		}
		switch key = strings.ToLower(key); {
		case key == "name" && f.name == "":
			f.name = value
		case key == "filename" && f.file == "":
			f.file = value
		case key == "filename*": // how some clients add a name beyond ASCII; names of files are not kept anyway
			f.file = cmp.Or(f.file, value)
		default:
			return errDisposition()
		}
		rest = behind
	}
	return nil
}

// cutValue reads a parameter's value and returns what stands behind the semicolon after it.
func cutValue(s string) (value, rest string, ok bool) {
	if quoted, is := strings.CutPrefix(s, `"`); is {
		if value, rest, ok = strings.Cut(quoted, `"`); !ok {
			return "", "", false
		}
		if rest = strings.TrimLeft(rest, " \t"); rest != "" && rest[0] != ';' {
			return "", "", false
		}
		rest = strings.TrimPrefix(rest, ";")
	} else {
		value, rest, _ = strings.Cut(s, ";")
		value = strings.TrimSpace(value)
	}
	return value, rest, value != "" && !strings.ContainsAny(value, "\"\\") && (s[0] == '"' || !strings.ContainsAny(value, " \t="))
}

func errDisposition() error {
	return errForm("has a part whose Content-Disposition can be read in two ways")
}

func errForm(what string) error {
	return &Error{400, "form_invalid", "the form " + what}
}

func plainText(s string) bool { return utf8.ValidString(s) && !HasControl(s) }

// formFields are the names a form may have: those of the OpenAI API, and what the servers add for languages. true: the
// name may stand more than once.
func formFields(name string) (known, list bool) {
	switch name {
	case "model", "file", "language", "to_language", "prompt", "response_format", "temperature", "stream", "seed",
		"chunking_strategy", "chunking_strategy[type]", "chunking_strategy[prefix_padding_ms]",
		"chunking_strategy[silence_duration_ms]", "chunking_strategy[threshold]":
		return true, false
	case "include[]", "timestamp_granularities[]", "include", "timestamp_granularities":
		return true, true
	}
	return false, false
}

// checkForm refuses names that are not known, or there twice, and wants the one file.
func checkForm(fields []formField) error {
	var seen []string
	for _, f := range fields {
		known, list := formFields(f.name)
		if !known {
			return &Error{400, "field_unknown", "the form's field " + strconv.Quote(f.name) + " is not known here; leave it out"}
		}
		if !list && slices.Contains(seen, f.name) {
			return &Error{400, "form_duplicate_name", "the form has the field " + strconv.Quote(f.name) + " twice"}
		}
		seen = append(seen, f.name)
		if isFile := f.name == "file"; isFile != (f.file != "") {
			return errForm("must have the sound, and nothing else, as a file called \"file\"")
		}
	}
	if !slices.Contains(seen, "file") {
		return errForm("has no file called \"file\"")
	}
	return nil
}

// readField notes what a field says, and brings it to its canonical form.
func (q *request) readField(f *formField) error {
	c := q.class
	if f.name == "file" {
		f.file, f.kind = plainFileName(f.file), plainKind(f.kind)
		c.PromptBytes += int64(len(f.value) / soundPerText)
		return nil
	}
	text := string(f.value)
	if len(text) > maxTextField || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return errForm("has text that is none, or is longer than 64 KiB, in " + strconv.Quote(f.name))
	}
	f.kind = ""
	switch f.name {
	case "model":
		name, err := q.name(text)
		f.value = []byte(name)
		return err
	case "stream":
		if text != "true" && text != "false" {
			return &Error{400, "field_invalid", "the form's field \"stream\" must be true or false"}
		}
		c.Stream = text == "true" && q.route.streams
	case "prompt":
		c.PromptBytes += int64(len(text))
	}
	return nil
}

// nameFormModel sees that the form names its model: the server would choose one itself.
func (q *request) nameFormModel(fields []formField) ([]formField, error) {
	if slices.ContainsFunc(fields, func(f formField) bool { return f.name == "model" }) {
		return fields, nil
	}
	if q.only == "" {
		return nil, &Error{400, "model_missing", "the form's field \"model\" names no model"}
	}
	name, err := q.name("")
	return slices.Insert(fields, 0, formField{name: "model", value: []byte(name)}), err
}

// plainFileName keeps of a file's name what says how to read it: a path in it has killed servers.
func plainFileName(name string) string {
	_, extension, ok := strings.Cut(name[max(0, strings.LastIndexByte(name, '.')):], ".")
	if !ok || extension == "" || len(extension) > 8 || strings.ContainsFunc(extension, notAlphanumeric) {
		return "audio"
	}
	return "audio." + extension
}

func notAlphanumeric(r rune) bool {
	return (r < 'a' || 'z' < r) && (r < 'A' || 'Z' < r) && (r < '0' || '9' < r)
}

// plainKind keeps a plain type of sound or film.
func plainKind(kind string) string {
	family, name, _ := strings.Cut(strings.ToLower(kind), "/")
	odd := func(r rune) bool { return notAlphanumeric(r) && r != '-' && r != '.' && r != '+' }
	if (family == "audio" || family == "video") && name != "" && !strings.ContainsFunc(name, odd) {
		return family + "/" + name
	}
	return "application/octet-stream"
}

// writeForm writes the canonical form. Its boundary is a digest of what is in it, so that the same parts are always the
// same bytes, and nobody can put the boundary into them.
func (q *request) writeForm(fields []formField) error {
	digest, size := sha256.New(), 0
	for _, f := range fields {
		for _, s := range [][]byte{[]byte(f.name), []byte(f.file), []byte(f.kind), f.value} {
			digest.Write(strconv.AppendInt(nil, int64(len(s)), 10))
			digest.Write([]byte{':'})
			digest.Write(s)
			size += len(s)
		}
	}
	boundary := "iap-" + hex.EncodeToString(digest.Sum(nil)[:20])
	out := make([]byte, 0, size+(len(fields)+1)*192)
	for _, f := range fields {
		if bytes.Contains(f.value, []byte(boundary)) {
			return errForm("holds a boundary of ours")
		}
		out = append(out, "--"+boundary+"\r\nContent-Disposition: form-data; name=\""+f.name+"\""...)
		if f.file != "" {
			out = append(out, "; filename=\""+f.file+"\"\r\nContent-Type: "+f.kind...)
		}
		out = append(append(append(out, "\r\n\r\n"...), f.value...), "\r\n"...)
	}
	q.class.Body = append(out, "--"+boundary+"--\r\n"...)
	q.class.ContentType = "multipart/form-data; boundary=" + boundary
	return nil
}
