package modelapi

// draft is an object of a canonical document under change. The bytes that stay are copied once, when all is said; what
// is added comes last, in the order it was added.
type draft struct {
	data    []byte   // the text that members point into
	members []member // of the object
	fates   []fate   // one for each member; nil while all stay as they are
	added   []addition
}

// fate is what becomes of a member: it stays, goes, or gets another value.
type fate struct {
	gone  bool
	value []byte // canonical JSON; nil: as it was
}

type addition struct {
	name  string // needs no escape
	value []byte
}

// draftAt begins to change the object that stands at an offset of canonical JSON.
func draftAt(data []byte, start int) *draft {
	d := &draft{data: data, members: make([]member, 0, maxSmallObject)}
	w := walker{data: data, pos: start + 1}
	for data[w.pos] != '}' {
		name := w.skipString()
		w.pos++ // the colon
		value := w.pos
		w.pos = skipValue(data, value)
		d.members = append(d.members, member{name: string(name), start: value, end: w.pos})
		if data[w.pos] == ',' {
			w.pos++
		}
	}
	return d
}

// changed says whether anything is other than it was.
func (d *draft) changed() bool { return d.fates != nil || d.added != nil }

// raw is the value of a member as it was.
func (d *draft) raw(i int) []byte { return d.data[d.members[i].start:d.members[i].end] }

// index finds a member by its name; -1 if it was not there.
func (d *draft) index(name string) int {
	for i := range d.members {
		if d.members[i].name == name {
			return i
		}
	}
	return -1
}

func (d *draft) fate(i int) *fate {
	if d.fates == nil {
		d.fates = make([]fate, len(d.members))
	}
	return &d.fates[i]
}

func (d *draft) drop(i int) { d.fate(i).gone = true }

// set gives a member another value. The same value is no change.
func (d *draft) set(i int, value []byte) {
	if string(value) != string(d.raw(i)) {
		d.fate(i).value = value
	}
}

// put sets a member that is there, or adds it.
func (d *draft) put(name string, value []byte) {
	if i := d.index(name); i >= 0 {
		d.set(i, value)
		return
	}
	d.added = append(d.added, addition{name, value})
}

// appendTo writes the object as it has become.
func (d *draft) appendTo(out []byte) []byte {
	out, _ = d.write(out, nil)
	return out
}

// document is the object as it has become, for more reading.
func (d *draft) document() *document {
	size := len(d.data)
	for _, a := range d.added {
		size += len(a.name) + len(a.value) + 4
	}
	doc := &document{object: true}
	doc.data, doc.members = d.write(make([]byte, 0, size), make([]member, 0, len(d.members)+len(d.added)))
	return doc
}

// write appends the object to out, and notes where its members stand there if members is not nil.
func (d *draft) write(out []byte, members []member) ([]byte, []member) {
	open := len(out)
	out = append(out, '{')
	one := func(name string, value []byte) {
		if len(out) > open+1 {
			out = append(out, ',')
		}
		out = append(append(append(out, '"'), name...), '"', ':')
		start := len(out)
		out = append(out, value...)
		if members != nil {
			members = append(members, member{name: name, start: start, end: len(out)})
		}
	}
	for i, m := range d.members {
		value := d.raw(i)
		if d.fates != nil {
			if d.fates[i].gone {
				continue
			}
			if d.fates[i].value != nil {
				value = d.fates[i].value
			}
		}
		one(m.name, value)
	}
	for _, a := range d.added {
		one(a.name, a.value)
	}
	return append(out, '}'), members
}
