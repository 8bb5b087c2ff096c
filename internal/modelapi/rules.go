package modelapi

import (
	_ "embed"
	"fmt"
	"slices"
	"sync"

	"github.com/go-json-experiment/json"
)

// bodyRules is the table of the fields that are security decisions, with the reason and the source of each.
//
//go:embed data/body-rules.json
var bodyRules []byte

// verb is what becomes of a field.
type verb string

// The verbs. Identity and owner are kept by the readers of models and ids, pass is written down so that nobody wonders.
const (
	identity  verb = "identity"  // names a model
	owner     verb = "owner"     // an id that must be the caller's
	pass      verb = "pass"      // nothing: the reason says why
	strip     verb = "strip"     // taken out silently: no harm to who sent it
	deny      verb = "deny"      // refused, unless it says nothing
	keep      verb = "keep"      // of an object the named members stay, if they are plain values
	capped    verb = "cap"       // asks for output tokens
	lower     verb = "lower"     // lowered with the cap
	count     verb = "count"     // multiplies the answers
	batch     verb = "batch"     // as a list, multiplies the answers by its length
	inputs    verb = "inputs"    // as a list, is bounded
	usage     verb = "usage"     // says whether a stream tells its cost
	overwrite verb = "overwrite" // replaced by what the relay knows
	dataURI   verb = "data-uri"  // media: inline or not at all
	tooled    verb = "tool"      // may name tools that the server runs itself
)

// bodyRule is one row of the table.
type bodyRule struct {
	Field string   `json:"field"`
	In    []string `json:"in"` // "top", "params" (options, parameters, sampling_params), "content"
	Verb  verb     `json:"rule"`
	With  string   `json:"with"`  // overwrite: "subject", "salt", "priority", "user_id"; batch: "lists" counts only lists, "raw" goes past a chat's template
	Keep  []string `json:"keep"`  // keep: the names that stay
	Media []string `json:"media"` // data-uri: the kinds this may be
	Raw   bool     `json:"raw"`   // data-uri: base64 without a data: before it is fine too

	Servers []string `json:"servers"` // where it was read. A rule holds everywhere: nobody knows what a fork understands
	Why     string   `json:"why"`
	Source  string   `json:"source"`

	kinds uint // Media, as bits
}

// answerAPI is an API that generates: where it wants to be told the bounds of a decision.
type answerAPI struct {
	Name    string   `json:"api"`
	Paths   []string `json:"paths"`
	Servers []string `json:"servers"` // none: all others
	Within  string   `json:"within"`  // the object that holds Field; "" is the top
	Field   string   `json:"field"`   // the cap the server obeys whatever else is there
	Or      []string `json:"or"`      // with one of these present, Field must not be added
	Default int64    `json:"default"` // what the server does when it is told nothing; 0: without bound
	Usage   bool     `json:"usage"`   // a stream tells its cost only if stream_options says so
	Subject string   `json:"subject"` // where the API has the caller's name; "" has no such place
	Salt    bool     `json:"salt"`    // servers with a salted cache read cache_salt here
	Source  string   `json:"source"`
}

// ruleBook is the table, made to be looked up.
type ruleBook struct {
	rows     []bodyRule
	apis     []answerAPI
	top      map[string]*bodyRule
	params   map[string]*bodyRule
	content  map[string]*bodyRule
	settings map[string]bool
	names    map[string]bool // all of them, for the check of letter case
}

// rules is the embedded table, parsed once.
func rules() *ruleBook { return embeddedRules() }

var embeddedRules = sync.OnceValue(func() *ruleBook {
	b, err := parseRules(bodyRules)
	if err != nil {
		panic("modelapi: the embedded body rules do not parse: " + err.Error()) // proven by a test
	}
	return b
})

func parseRules(data []byte) (*ruleBook, error) {
	var file struct {
		Fields   []bodyRule  `json:"fields"`
		Settings []string    `json:"settings"`
		APIs     []answerAPI `json:"apis"`
	}
	if err := json.Unmarshal(data, &file, json.RejectUnknownMembers(true)); err != nil {
		return nil, err
	}
	b := &ruleBook{
		rows: file.Fields, apis: file.APIs, top: map[string]*bodyRule{}, params: map[string]*bodyRule{},
		content: map[string]*bodyRule{}, settings: map[string]bool{}, names: map[string]bool{},
	}
	for i := range b.rows {
		if err := b.add(&b.rows[i]); err != nil {
			return nil, fmt.Errorf("rule for %q: %w", b.rows[i].Field, err)
		}
	}
	for _, name := range file.Settings {
		b.settings[name] = true
		b.names[name] = true
	}
	return b, nil
}

func (b *ruleBook) add(r *bodyRule) error {
	known := []verb{
		identity, owner, pass, strip, deny, keep, capped, lower, count, batch, inputs, usage, overwrite, dataURI, tooled,
	}
	if !slices.Contains(known, r.Verb) || r.Why == "" || r.Source == "" || len(r.Servers) == 0 || len(r.In) == 0 {
		return fmt.Errorf("the row is not complete, or its rule %q is not known", r.Verb)
	}
	for _, word := range r.Media {
		i := slices.Index(mediaKinds[:], word)
		if i < 0 {
			return fmt.Errorf("media of the kind %q are not known", word)
		}
		r.kinds |= 1 << i
	}
	for _, in := range r.In {
		where := map[string]map[string]*bodyRule{"top": b.top, "params": b.params, "content": b.content}[in]
		if where == nil || where[r.Field] != nil {
			return fmt.Errorf("the place %q is not known, or has the field twice", in)
		}
		where[r.Field] = r
	}
	b.names[r.Field] = true
	return nil
}

// api finds the API of a route on a server; nil if it generates nothing that the table knows.
func (b *ruleBook) api(server, path string) *answerAPI {
	for i := range b.apis {
		a := &b.apis[i]
		if slices.Contains(a.Paths, path) && (len(a.Servers) == 0 || slices.Contains(a.Servers, server)) {
			return a
		}
	}
	return nil
}
