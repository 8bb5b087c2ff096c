package modelapi

import (
	"bytes"
	"net/url"
	"strings"
)

// Classify says what a request is and gives its canonical form. The error, an [*Error], says why the request cannot be
// sent at all; what is known of its class comes with it, so that the refusal can be recorded and put in the right
// dialect. A request that no row matches has no error and the action [Unknown]. Classify keeps no reference to in.Body
// and leaves it as it is.
func (t *Table) Classify(in Input) (Class, error) {
	c := Class{Action: Unknown, Protocol: ProtocolOf(in.Path), Framing: JSON, Choices: 1}
	if err := checkPath(in.Path); err != nil {
		return c, err
	}
	rs := t.routesOf(in.Server)
	if rs == nil {
		return c, nil
	}
	r, values := rs.find(in.routeMethod(), in.Path)
	if r == nil {
		if strings.IndexByte(in.Path, '%') >= 0 {
			return c, errPath() // an encoding no parameter needs
		}
		return c, nil
	}
	c.Protocol, c.Route = r.protocol, r.path
	if r.action == Unknown {
		c.Route = ""
		return c, nil
	}
	c.Action, c.SubAction, c.Target = r.action, r.sub, in.Path
	c.Upgrade = in.Upgrade != ""
	if in.Only != "" && !validExactName(in.Only) {
		return c, &Error{502, "upstream_invalid", "the model server gives its model a name that is none"}
	}
	q := request{route: r, in: in, class: &c, only: in.Only}
	if r.action == ManageModel {
		q.only = "" // what is loaded or deleted is what was named
	}
	if err := q.read(values); err != nil {
		return c, err
	}
	return c, nil
}

// HasRoute says whether method and path match a row at all: whether reading the body is worth it.
func (t *Table) HasRoute(in Input) bool {
	rs := t.routesOf(in.Server)
	if rs == nil || checkPath(in.Path) != nil {
		return false
	}
	r, _ := rs.find(in.routeMethod(), in.Path)
	return r != nil && r.action != Unknown
}

// routeMethod is the method under which the table has a request: a WebSocket is asked for by a GET and is something else.
// "" matches no row.
func (in Input) routeMethod() string {
	switch {
	case in.Upgrade == "" && in.Method != methodWebSocket:
		return in.Method
	case in.Method == "GET" && strings.EqualFold(in.Upgrade, "websocket"):
		return methodWebSocket
	}
	return ""
}

// methodWebSocket is the data's word for a GET that asks for a WebSocket.
const methodWebSocket = "WEBSOCKET"

// Verify classifies a request that claims to be canonical already, and refuses one that is not: the second check of
// who receives what another has classified.
func (t *Table) Verify(in Input) (Class, error) {
	c, err := t.Classify(in)
	if err != nil || c.Action == Unknown {
		return c, err
	}
	kind := c.ContentType
	if kind == "" {
		kind = "application/json"
	}
	target := in.Path
	if in.Query != "" {
		target += "?" + in.Query
	}
	if target != c.Target || !bytes.Equal(in.Body, c.Body) || in.ContentEncoding != "" || len(c.Body) > 0 && in.ContentType != kind {
		return c, &Error{400, "not_canonical", "the request is not in the form it was decided on"}
	}
	return c, nil
}

// request is one classification under way.
type request struct {
	route *route
	in    Input
	class *Class
	only  string
	doc   *document
}

func (q *request) read(values map[string]string) error {
	if err := q.readPath(values); err != nil {
		return err
	}
	if err := q.readQuery(); err != nil {
		return err
	}
	if err := q.readBody(); err != nil {
		return err
	}
	q.readFraming()
	if err := q.settleIDs(); err != nil {
		return err
	}
	return q.settleModel()
}

// readQuery keeps the one key a route has a use for and drops every other: what a query can change behind the back of
// a decision differs with each server.
func (q *request) readQuery() error {
	key := ""
	switch q.route.place {
	case inQuery:
		key = "model"
	case inSlotAction:
		key = "action"
	case inConversation:
		if q.route.pattern == nil {
			key = "conv_id"
		}
	}
	if key == "" || q.in.Query == "" {
		return nil
	}
	parsed, err := url.ParseQuery(q.in.Query)
	if err != nil || len(parsed[key]) > 1 {
		return &Error{400, "query_ambiguous", "the query can be read in two ways; write it plainly"}
	}
	value := parsed.Get(key)
	if value == "" {
		return nil
	}
	switch key {
	case "model":
		value, err = q.name(value)
	case "conv_id":
		err = q.addID(IDStream, value)
	}
	if err != nil {
		return err
	}
	q.class.Target += "?" + key + "=" + url.QueryEscape(value)
	return nil
}

// readPath writes the path anew, with the parameter in its plain spelling.
func (q *request) readPath(values map[string]string) error {
	r := q.route
	if r.pattern == nil {
		return nil
	}
	for key, value := range values {
		if r.place != inPath || key != "model" && key != "model_name" {
			continue
		}
		name, err := q.name(value)
		if err != nil {
			return err
		}
		if !validParameter(name, r.pattern.open) { // the name of an alias, or of the only model, may be any
			return &Error{404, "model_not_found", "this server cannot find a model of this name by its path"}
		}
		values[key] = name
	}
	q.class.Target = r.pattern.build(values)
	return q.readPathIDs(values)
}

// readFraming says how the answer will come, once the body has said whether it streams.
func (q *request) readFraming() {
	c := q.class
	c.Framing = q.route.framing
	switch {
	case q.in.Method == "HEAD":
		c.Framing, c.Stream = None, false
	case q.route.streams && !c.Stream:
		c.Framing = JSON
	}
}
