package modelapi

import "bytes"

// tokenBytes is what a token given as a number counts.
const tokenBytes = 4

// remoteLink is how text names an image that TGI fetches.
const remoteLink = "![](http"

// fetchesLinks says of which servers that is true, or may be.
func fetchesLinks(server string) bool {
	return server == ServerTGI || server == Auto || server == ""
}

// readContent reads all of the body that the model would read: it counts it, finds the media in it and sees to it that
// the server has nothing to fetch, and finds the tools that the server would run.
func (q *request) readContent(book *ruleBook, d *draft) error {
	r := contentReader{data: d.data, book: book, markdown: fetchesLinks(q.in.Server)}
	if r.markdown && bytes.Contains(d.data, []byte(remoteLink)) {
		return errLink() // wherever it stands: templates put tools and their calls into the text too
	}
	for i, m := range d.members {
		if d.fates != nil && d.fates[i].gone {
			continue
		}
		r.pos, r.tail = m.start, nil
		if err := r.top(m.name); err != nil {
			return err
		}
	}
	c := q.class
	c.PromptBytes = r.bytes
	if r.tool {
		c.also(Tool)
	}
	for i, kind := range mediaKinds {
		if r.media&(1<<i) != 0 {
			c.Media = append(c.Media, kind)
		}
	}
	return nil
}

// contentReader goes through canonical JSON once.
type contentReader struct {
	data     []byte
	pos      int
	book     *ruleBook
	markdown bool   // the server fetches the images of Markdown text
	tail     []byte // the end of the text before; only with markdown
	depth    int    // of objects around pos
	items    bool   // pos is in the Responses API's list of items
	bytes    int64
	media    uint
	tool     bool
	offered  int // tools in all
}

// maxTwice is the depth down to which an object may be looked at twice: real messages are not as deep, and the time for
// one that is stays in proportion to its length.
const maxTwice = 4

// maxTools bounds the tools of one body: each is looked at.
const maxTools = 2048

// top reads one member of the body.
func (r *contentReader) top(name string) error {
	switch first := r.data[r.pos]; {
	case name == "model" || r.book.settings[name]:
		return nil
	case name == "functions": // the older form of tools, all of them the client's
		r.bytes += int64(len(r.skip()))
		return nil
	case name == "text" && first == '{': // the Responses API's output format; SGLang's prompt is a string
		return nil
	case first != '{' && first != '[' && first != '"':
		return nil // a setting
	}
	r.items = name == "input"
	return r.member([]byte(name))
}

// member reads the value of a name.
func (r *contentReader) member(name []byte) error {
	rule := r.book.content[string(name)]
	switch {
	case rule == nil:
		return r.value()
	case rule.Verb == dataURI:
		return r.mediaValue(rule)
	case rule.Verb == tooled:
		return r.tools()
	}
	// An empty prompt_embeds makes vLLM take the "data" beside it for one.
	if raw := r.skip(); !saysNothing(raw) || rule.Field == "prompt_embeds" {
		return errDenied(rule)
	}
	return nil
}

func (r *contentReader) value() error {
	switch r.data[r.pos] {
	case '{':
		return r.object()
	case '[':
		return r.array((*contentReader).value)
	case '"':
		return r.text(r.skip())
	case 't', 'f', 'n':
		r.skip()
	default:
		r.bytes += tokenBytes
		r.skip()
	}
	return nil
}

// array reads each element of an array in the same way.
func (r *contentReader) array(one func(*contentReader) error) error {
	for r.pos++; r.data[r.pos] != ']'; {
		if err := one(r); err != nil {
			return err
		}
		if r.data[r.pos] == ',' {
			r.pos++
		}
	}
	r.pos++
	return nil
}

// part is what must be known of an object before its telling members can be judged.
type part struct {
	kind    []byte // the raw "type"
	address bool   // it has a "url" that is no data: URI
	stored  bool   // it has an id that stands for media kept elsewhere
	input   int    // where the value of "input" begins; 0: none
	id      bool   // it has an id
	more    bool   // it has something besides id and type
}

// object reads an object inside the body: a message, a part of its content, or what stands in one.
func (r *contentReader) object() error {
	var p part
	r.depth++
	defer func() { r.depth-- }()
	for r.pos++; r.data[r.pos] != '}'; {
		name := r.name()
		if err := r.checkName(name); err != nil {
			return err
		}
		if err := r.partMember(&p, name); err != nil {
			return err
		}
		if r.data[r.pos] == ',' {
			r.pos++
		}
	}
	r.pos++
	return r.judge(&p)
}

// partMember reads one member of an object, or notes it for later.
func (r *contentReader) partMember(p *part, name []byte) error {
	p.more = p.more || string(name) != "type" && string(name) != "id"
	switch string(name) {
	case "type":
		p.kind = r.skip()
	case "id":
		p.id = !saysNothing(r.skip())
	case "url":
		if r.data[r.pos] != '"' {
			return r.value()
		}
		raw := r.skip()
		if p.address = !isDataURI(raw); p.address {
			return r.text(raw)
		}
		r.note(kindOf(raw[len(`"data:`):]), len(raw))
	case "uuid", "file_id":
		p.stored = !saysNothing(r.skip()) || p.stored
	case "input":
		if r.depth > maxTwice {
			return r.member(name)
		}
		p.input = r.pos
		r.skip()
	case "tool_calls", "function_call", "arguments":
		r.bytes += int64(len(r.skip())) // what the model wrote for a tool: nothing is fetched from there
	default:
		if r.data[r.pos] == '"' && string(name) != "text" && string(name) != "content" && r.book.content[string(name)] == nil {
			tail := r.tail
			err := r.text(r.skip())
			r.tail = tail // the server does not put it beside the text before
			return err
		}
		return r.member(name)
	}
	return nil
}

// isReference says whether an item of the Responses API stands for one that the server keeps: such ids are told to
// nobody here, and asked of nobody there.
func (p *part) isReference() bool {
	return string(p.kind) == `"item_reference"` || p.id && !p.more && (p.kind == nil || saysNothing(p.kind))
}

// judge looks at what a finished object's type makes of its members.
func (r *contentReader) judge(p *part) error {
	if p.input > 0 {
		end := r.pos
		r.pos = p.input
		if bytes.HasSuffix(p.kind, []byte(`tool_use"`)) {
			r.bytes += int64(len(r.skip())) // arguments, as above
		} else if err := r.member([]byte("input")); err != nil {
			return err
		}
		r.pos = end
	}
	if r.items && r.depth == 1 && p.isReference() {
		return errStored()
	}
	if len(p.kind) < 2 || p.kind[0] != '"' {
		return nil
	}
	if rule := r.book.content[string(p.kind[1:len(p.kind)-1])]; rule != nil && rule.Verb == deny {
		return errDenied(rule) // {"type": "prompt_embeds", "data": …}
	}
	if !p.address && !p.stored {
		return nil
	}
	for _, word := range [...]string{"image", "audio", "video", "file", "media", "document"} {
		if !bytes.Contains(p.kind, []byte(word)) || bytes.Contains(p.kind, []byte("citation")) {
			continue
		}
		if p.stored {
			return errStored()
		}
		return errRemote("url")
	}
	return nil
}

// text counts a string that the model reads.
func (r *contentReader) text(raw []byte) error {
	text := raw[1 : len(raw)-1]
	r.bytes += int64(len(text))
	if !r.markdown {
		return nil
	}
	// The server joins the pieces of a message before it looks for links.
	seam := append(r.tail, text[:min(len(text), len(remoteLink)-1)]...)
	if bytes.Contains(seam, []byte(remoteLink)) {
		return errLink()
	}
	if bytes.Contains(text, []byte("![](data:")) {
		r.media |= mediaImage
	}
	if len(text) < len(remoteLink)-1 {
		text = seam
	}
	r.tail = bytes.Clone(text[max(0, len(text)-len(remoteLink)+1):])
	return nil
}

// checkName refuses a name that counts, in another letter case: lenient parsers take it for that name.
func (r *contentReader) checkName(name []byte) error {
	if isPlainName(name) {
		return nil
	}
	folded := string(foldName(name))
	switch folded {
	case "type", "url", "uri", "path", "input", "data", "media_type", "file_id", "uuid":
		return errNameCase(folded)
	}
	if r.book.content[folded] != nil {
		return errNameCase(folded)
	}
	return nil
}

// name reads a name and the colon behind it.
func (r *contentReader) name() []byte {
	raw := r.skip()
	r.pos++
	return raw[1 : len(raw)-1]
}

// skip moves behind the value at pos and returns it.
func (r *contentReader) skip() []byte {
	start := r.pos
	r.pos = skipValue(r.data, start)
	return r.data[start:r.pos]
}

// tools counts the tools, whose descriptions the model reads, and finds those that the server would run itself.
func (r *contentReader) tools() error {
	raw := r.skip()
	r.bytes += int64(len(raw))
	if r.depth > maxTwice {
		r.tool = true // no tool that a client knows is hidden as deep
		return nil
	}
	if raw[0] != '[' {
		return nil
	}
	for element := range elementsOf(raw) {
		if r.offered++; r.offered > maxTools {
			return &Error{400, "too_many_tools", "the body offers more than 2,048 tools"}
		}
		if element[0] != '{' {
			continue
		}
		d := draftAt(element, 0)
		for _, m := range d.members {
			if err := r.checkName([]byte(m.name)); err != nil {
				return err
			}
		}
		kind := ""
		if i := d.index("type"); i >= 0 {
			kind = string(d.raw(i))
		}
		if !isClientTool(kind) {
			r.tool = true
		}
		if i := d.index("tools"); i >= 0 { // of a namespace
			inner := contentReader{data: element, pos: d.members[i].start, book: r.book, depth: r.depth + 1, offered: r.offered}
			if err := inner.tools(); err != nil {
				return err
			}
			r.tool, r.offered = r.tool || inner.tool, inner.offered
		}
	}
	return nil
}

// isClientTool says which types of tools the client runs itself: the model only asks for them.
func isClientTool(kind string) bool {
	switch kind {
	case "", "null", `""`, `"function"`, `"custom"`, `"namespace"`, `"local_shell"`, `"apply_patch"`:
		return true
	}
	return false
}
