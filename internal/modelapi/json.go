package modelapi

import (
	"bytes"
	"errors"
	"strconv"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Sizes a stranger's body is held to.
const (
	MaxBody  = 32 << 20 // an image as a data URI is about 20 MB
	MaxDepth = 64       // deeper than any real request; recursive parsers upstream have died of depth

	maxNames       = 1 << 14 // of one object: what is kept of each name is more than the name
	maxSmallObject = 12      // up to here comparing each name with each other beats a map
)

// document is a JSON text in canonical form: no space, the shortest escapes, numbers as they were written.
type document struct {
	data    []byte
	object  bool
	members []member // of the top object
}

// member is one name and value of the top object, as offsets into data. name is unquoted as it stands there: names
// that need an escape keep it.
type member struct {
	name       string
	start, end int // of the value
}

// parseJSON checks src against every rule on which two parsers could differ and brings it to canonical form.
func parseJSON(src []byte) (*document, error) {
	if len(src) > MaxBody {
		return nil, errTooLarge()
	}
	if len(src) == 0 {
		return nil, &Error{400, "body_missing", "this route needs a JSON body"}
	}
	// Duplicate names are looked for below, after case folding.
	data, err := jsontext.AppendFormat(make([]byte, 0, len(src)), src, jsontext.AllowDuplicateNames(true))
	if err != nil {
		return nil, &Error{400, "json_invalid", "the body is not one strict JSON value in UTF-8"}
	}
	w := walker{data: data}
	d := &document{data: data, object: data[0] == '{'}
	if d.object {
		d.members = make([]member, 0, maxSmallObject)
		w.members = &d.members
	}
	if err := w.value(1); err != nil {
		return nil, err
	}
	return d, nil
}

// lookup finds the raw value of a name of the top object; nil if it is not there.
func (d *document) lookup(name string) []byte {
	for i := range d.members {
		if d.members[i].name == name {
			return d.data[d.members[i].start:d.members[i].end]
		}
	}
	return nil
}

// setString replaces the value of a name that is there by a string, and keeps the form canonical.
func (d *document) setString(name, value string) {
	quoted, err := jsontext.AppendQuote(nil, value)
	if err != nil {
		return // value came out of valid JSON
	}
	for i := range d.members {
		m := &d.members[i]
		if m.name != name || bytes.Equal(d.data[m.start:m.end], quoted) {
			continue
		}
		rest := d.data[m.end:]
		grown := make([]byte, 0, len(d.data)-(m.end-m.start)+len(quoted))
		grown = append(append(append(grown, d.data[:m.start]...), quoted...), rest...)
		shift := len(quoted) - (m.end - m.start)
		m.end += shift
		for j := i + 1; j < len(d.members); j++ {
			d.members[j].start += shift
			d.members[j].end += shift
		}
		d.data = grown
		return
	}
}

// addString adds a name that is not there, first of all, with a string for its value.
func (d *document) addString(name, value string) {
	added := string(object(name, quote(value)))
	added = added[:len(added)-1]
	if len(d.members) > 0 {
		added += ","
	}
	d.data = append([]byte(added), d.data[1:]...)
	shift := len(added) - 1
	for i := range d.members {
		d.members[i].start += shift
		d.members[i].end += shift
	}
	start := len(name) + len(`{"":`)
	d.members = append([]member{{name: name, start: start, end: start + len(quote(value))}}, d.members...)
}

// walker reads canonical, hence valid, JSON once: it checks depth and names, and notes the members of the top object.
type walker struct {
	data    []byte
	pos     int
	members *[]member
}

func (w *walker) value(depth int) error {
	switch w.data[w.pos] {
	case '{':
		return w.object(depth)
	case '[':
		return w.array(depth)
	case '"':
		w.skipString()
	default: // a number or a literal: it ends where a delimiter stands
		start := w.pos
		for w.pos < len(w.data) && w.data[w.pos] != ',' && w.data[w.pos] != '}' && w.data[w.pos] != ']' {
			w.pos++
		}
		return inRange(w.data[start:w.pos])
	}
	return nil
}

// inRange refuses numbers that no double holds: one parser reads infinity there and hands it to a sampler, the next
// refuses.
func inRange(number []byte) error {
	const digits = 308 // every number of so many is a double's
	if len(number) <= digits && bytes.IndexByte(number, 'E') < 0 && (number[0] > '9' || bytes.IndexByte(number, 'e') < 0) {
		return nil // the letters of true, false and null are no exponent
	}
	if _, err := strconv.ParseFloat(string(number), 64); errors.Is(err, strconv.ErrRange) {
		return &Error{400, "json_number", "the body holds a number beyond the range of numbers"}
	}
	return nil
}

func (w *walker) array(depth int) error {
	if depth > MaxDepth {
		return errDepth()
	}
	w.pos++
	for w.data[w.pos] != ']' {
		if err := w.value(depth + 1); err != nil {
			return err
		}
		if w.data[w.pos] == ',' {
			w.pos++
		}
	}
	w.pos++
	return nil
}

func (w *walker) object(depth int) error {
	if depth > MaxDepth {
		return errDepth()
	}
	members := w.members
	w.members = nil // only the top object's are noted
	var seen nameSet
	w.pos++
	for n := 0; w.data[w.pos] != '}'; n++ {
		name := w.skipString()
		if n == maxNames {
			return &Error{400, "json_too_many_names", "the body has an object of more than 16,384 names"}
		}
		if !seen.add(name) {
			return &Error{400, "json_duplicate_name", "the body has a name twice in one object (letter case does not tell names apart)"}
		}
		w.pos++ // the colon
		start := w.pos
		if err := w.value(depth + 1); err != nil {
			return err
		}
		if members != nil {
			*members = append(*members, member{name: string(name), start: start, end: w.pos})
		}
		if w.data[w.pos] == ',' {
			w.pos++
		}
	}
	w.pos++
	return nil
}

// skipString moves behind the string at pos and returns what stands between its quotes.
func (w *walker) skipString() []byte {
	start := w.pos + 1
	for i := start; ; {
		j := i + bytes.IndexByte(w.data[i:], '"')
		backslashes := 0
		for k := j - 1; k >= start && w.data[k] == '\\'; k-- {
			backslashes++
		}
		if backslashes%2 == 0 {
			w.pos = j + 1
			return w.data[start:j]
		}
		i = j + 1
	}
}

func errDepth() error {
	return &Error{400, "json_too_deep", "the body is nested deeper than 64 levels"}
}

// nameSet holds the names of one object, folded.
type nameSet struct {
	few  [maxSmallObject][]byte
	n    int // of few
	many map[string]struct{}
}

// add says whether name is new.
func (s *nameSet) add(name []byte) bool {
	folded := foldName(name)
	if s.many == nil {
		for _, other := range s.few[:s.n] {
			if bytes.Equal(other, folded) {
				return false
			}
		}
		if s.n < maxSmallObject {
			s.few[s.n] = folded
			s.n++
			return true
		}
		s.many = make(map[string]struct{}, 4*maxSmallObject)
		for _, other := range s.few {
			s.many[string(other)] = struct{}{}
		}
	}
	if _, old := s.many[string(folded)]; old {
		return false
	}
	s.many[string(folded)] = struct{}{}
	return true
}

// foldName brings names that a case-insensitive parser takes for one to one spelling, by Unicode's simple folding: the
// long s and the Kelvin sign are letters of "messages" and "tokens" to encoding/json. Lower-case ASCII is returned as
// it is.
func foldName(name []byte) []byte {
	if isPlainName(name) {
		return name
	}
	out := make([]byte, 0, len(name))
	for i := 0; i < len(name); {
		r, size := utf8.DecodeRune(name[i:])
		i += size
		out = utf8.AppendRune(out, foldRune(r))
	}
	return out
}

func isPlainName(name []byte) bool {
	for _, c := range name {
		if c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

// foldRune picks the least rune of a folding orbit, and of ASCII letters the lower case.
func foldRune(r rune) rune {
	least := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		least = min(least, f)
	}
	if 'A' <= least && least <= 'Z' {
		least += 'a' - 'A'
	}
	return least
}
