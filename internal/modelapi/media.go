package modelapi

import "bytes"

// What a piece of media counts in PromptBytes, at about four bytes to a token: an image is some thousand tokens
// whatever its file's size, a sound some twenty-five a second, a video a row of images. A file may be text, and counts
// three quarters of its base64.
const (
	imageBytes = 4 << 10
	audioBytes = 8 << 10
	videoBytes = 64 << 10
)

// The kinds of media, in the order they are told.
const (
	mediaAudio = 1 << iota
	mediaFile
	mediaImage
	mediaVideo
)

// mediaKinds are their words, in alphabetical order.
var mediaKinds = [...]string{"audio", "file", "image", "video"}

// mediaValue reads the value of a field that holds media.
func (r *contentReader) mediaValue(rule *bodyRule) error {
	switch r.data[r.pos] {
	case '{':
		return r.mediaObject(rule)
	case '[':
		return r.array(func(r *contentReader) error { return r.mediaValue(rule) })
	case '"':
		if rule.Field == "source" { // of a search result: its name
			return r.text(r.skip())
		}
		return r.inline(rule, r.skip(), rule.kinds, rule.Raw)
	}
	r.skip()
	return nil
}

// mediaObject reads an object around media: {"url": …}, {"data": …}, {"type": "base64", "media_type": …, "data": …}.
func (r *contentReader) mediaObject(rule *bodyRule) error {
	kinds, text := r.describe(rule)
	r.depth++
	defer func() { r.depth-- }()
	for r.pos++; r.data[r.pos] != '}'; {
		name := r.name()
		if err := r.checkName(name); err != nil {
			return err
		}
		var err error
		switch string(name) {
		case "url", "uri", "path":
			err = r.inline(rule, r.skip(), kinds, false)
		case "data", "file_data":
			if raw := r.skip(); text && raw[0] == '"' {
				err = r.text(raw)
			} else {
				err = r.inline(rule, raw, kinds, true)
			}
		case "file_id", "uuid":
			if !saysNothing(r.skip()) {
				err = errStored()
			}
		case "media_type":
			r.skip()
		case "format":
			if raw := string(r.skip()); raw == `"processor_output"` || raw == `"precomputed_embedding"` {
				err = &Error{400, "field_denied", "the body's field \"" + rule.Field + "\" must not hold tensors in place of an image, sound or video"}
			}
		default:
			err = r.member(name)
		}
		if err != nil {
			return err
		}
		if r.data[r.pos] == ',' {
			r.pos++
		}
	}
	r.pos++
	return nil
}

// describe reads what the object at pos says of the media in it: of which kinds it is, and whether it is plain text.
func (r *contentReader) describe(rule *bodyRule) (kinds uint, text bool) {
	if r.depth > maxTwice {
		return rule.kinds, false
	}
	d := draftAt(r.data, r.pos)
	i, j := d.index("type"), d.index("media_type")
	kinds = rule.kinds
	if j >= 0 {
		if said := kindOf(bytes.Trim(d.raw(j), `"`)); said != 0 {
			kinds = said
		}
	}
	return kinds, i >= 0 && string(d.raw(i)) == `"text"`
}

// inline takes media that the request carries itself, and nothing else.
func (r *contentReader) inline(rule *bodyRule, raw []byte, kinds uint, bare bool) error {
	if raw[0] != '"' {
		if string(raw) == "null" {
			return nil
		}
		return errRemote(rule.Field)
	}
	if len(raw) == 2 {
		return nil
	}
	if isDataURI(raw) {
		kinds |= kindOf(raw[len(`"data:`):]) // a sound under an image's name is both
	} else if !bare || !isBase64(raw[1:len(raw)-1]) {
		return errRemote(rule.Field)
	}
	r.note(kinds, len(raw))
	return nil
}

// note counts media of some kinds.
func (r *contentReader) note(kinds uint, size int) {
	r.media |= kinds
	if kinds&mediaImage != 0 {
		r.bytes += imageBytes
	}
	if kinds&mediaAudio != 0 {
		r.bytes += audioBytes
	}
	if kinds&mediaVideo != 0 {
		r.bytes += videoBytes
	}
	if kinds&mediaFile != 0 {
		r.bytes += int64(size) * 3 / 4
	}
}

// kindOf reads a media type; 0 is one that says nothing.
func kindOf(mediaType []byte) uint {
	for i, kind := range mediaKinds {
		if bytes.HasPrefix(mediaType, []byte(kind)) && bytes.HasPrefix(mediaType[len(kind):], []byte("/")) {
			return 1 << i
		}
	}
	if bytes.HasPrefix(mediaType, []byte("application/")) || bytes.HasPrefix(mediaType, []byte("text/")) {
		return mediaFile
	}
	return 0
}

// isDataURI looks at a raw JSON string. Canonical JSON has one spelling of these letters. What stands behind them is
// made of the letters of base64 and of media types alone: TGI puts it into a text in which it looks for other links.
func isDataURI(raw []byte) bool {
	rest, ok := bytes.CutPrefix(raw[:len(raw)-1], []byte(`"data:`))
	if !ok {
		return false
	}
	for _, c := range rest {
		if !isBase64Letter(c) && c != ';' && c != ',' && c != '.' && c != ':' && c != '%' && c != '~' {
			return false
		}
	}
	return true
}

// isBase64 takes both alphabets, without line breaks. No file with an ending can be spelled in them, and no address
// beside what begins like one: llama.cpp asks no more before it fetches.
func isBase64(s []byte) bool {
	if bytes.HasPrefix(s, []byte("http")) || bytes.HasPrefix(s, []byte("file")) {
		return false
	}
	for _, c := range s {
		if !isBase64Letter(c) {
			return false
		}
	}
	return true
}

func isBase64Letter(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return c == '+' || c == '/' || c == '-' || c == '_' || c == '='
}

func errRemote(field string) error {
	return &Error{400, "media_remote", "the body's field \"" + field + "\" must carry the data itself, as a data: URI: the model server fetches nothing for its callers"}
}

func errStored() error {
	return &Error{400, "media_stored", "what is stored and named by an id only is not accepted: such ids have no owner here; send the image, sound, file or message itself"}
}

func errLink() error {
	return &Error{400, "media_remote", "this server would fetch the image that the text links with ![](http…); write the link otherwise, or the image as a data: URI"}
}
