package modelapi

import (
	"slices"
	"strings"
)

// Kinds of [ID]. Those whose answers are never read for one are of nobody: a request that names one is denied.
const (
	IDResponse     = "response"     // handed out by /v1/responses
	IDSession      = "session"      // handed out by SGLang's /open_session
	IDRequest      = "request"      // one that is running
	IDStream       = "stream"       // llama.cpp's conversations
	IDConversation = "conversation" // of the Responses API
)

const (
	maxID  = 256
	maxIDs = 128 // of one request: each is looked up
)

// pathID says which kind of id a parameter of a path is; "" for none.
func pathID(parameter string) string {
	switch parameter {
	case "response_id":
		return IDResponse
	case "conv_id":
		return IDStream
	case "id":
		return IDRequest
	}
	return ""
}

// readPathIDs notes the ids in a path.
func (q *request) readPathIDs(values map[string]string) error {
	if q.route.action != Session {
		return nil
	}
	for parameter, value := range values {
		if kind := pathID(parameter); kind != "" {
			if err := q.addID(kind, value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (q *request) addID(kind, value string) error {
	if value == "" || len(value) > maxID || !validExactName(value) {
		return &Error{400, "id_invalid", "the request names what the server keeps by an id that is none"}
	}
	id := ID{Kind: kind, Value: value}
	switch {
	case slices.Contains(q.class.IDs, id):
		return nil
	case len(q.class.IDs) == maxIDs:
		return &Error{400, "too_many_ids", "one request may go on with 128 sessions at most; send it in parts"}
	}
	q.class.IDs = append(q.class.IDs, id)
	return nil
}

// readIDs notes what a body refers to, and what the answer will hand out.
func (q *request) readIDs() error {
	if q.route.action == Session {
		return q.readSessionIDs()
	}
	if err := q.bodyID(IDResponse, "previous_response_id", q.doc.lookup("previous_response_id")); err != nil {
		return err
	}
	conversation := q.doc.lookup("conversation")
	if len(conversation) > 0 && conversation[0] == '{' {
		if conversation = memberOf(conversation, "id"); conversation == nil {
			return errID("conversation")
		}
	}
	if err := q.bodyID(IDConversation, "conversation", conversation); err != nil {
		return err
	}
	return q.readSessionParams()
}

// readSessionParams reads the SGLang sessions that a generation goes on with: one, or one for each prompt.
func (q *request) readSessionParams() error {
	raw := q.doc.lookup("session_params")
	if isAbsent(raw) {
		return nil
	}
	all, err := oneOrMany("session_params", raw)
	if err != nil {
		return err
	}
	for _, one := range all {
		if isAbsent(one) {
			continue
		}
		if one[0] != '{' || isAbsent(memberOf(one, "id")) {
			return errID("session_params")
		}
		if err := q.bodyID(IDSession, "session_params", memberOf(one, "id")); err != nil {
			return err
		}
	}
	return nil
}

// readSessionIDs reads the bodies of the routes that are about nothing but ids.
func (q *request) readSessionIDs() error {
	switch q.route.path {
	case "/v1/chat/completions/control":
		return q.bodyID(IDRequest, "id", q.doc.lookup("id"))
	case "/close_session":
		return q.bodyID(IDSession, "session_id", q.doc.lookup("session_id"))
	case "/open_session":
		if !isAbsent(q.doc.lookup("session_id")) {
			return &Error{400, "field_denied", "the body's field \"session_id\" is not allowed: the server chooses the id"}
		}
	case "/abort_request":
		if all := q.doc.lookup("abort_all"); !isAbsent(all) && string(all) != "false" {
			q.class.Action, q.class.SubAction = ServerAdmin, "abort-all"
			return nil
		}
		return q.bodyID(IDRequest, "rid", q.doc.lookup("rid"))
	}
	return nil
}

// bodyID notes the id in a field of the body, if there is one.
func (q *request) bodyID(kind, field string, raw []byte) error {
	if isAbsent(raw) {
		return nil
	}
	value, ok := stringValue(raw)
	if !ok {
		return errID(field)
	}
	return q.addID(kind, value)
}

// settleIDs refuses a request about something kept that does not say about what, and says what the answer hands out.
func (q *request) settleIDs() error {
	c := q.class
	switch {
	case c.Action == Session && c.SubAction == "open":
		c.Hands = IDSession
	case c.Action == Session && len(c.IDs) == 0:
		return &Error{400, "id_missing", "the request does not say which answer, session or request it is about"}
	case c.Action == Chat && strings.HasSuffix(q.route.path, "/responses"):
		if server := q.in.Server; server != ServerOllama && server != ServerLlamaCPP { // they keep no answer
			c.Hands = IDResponse
		}
	}
	return nil
}

func errID(field string) error {
	return &Error{400, "id_invalid", "the body's field \"" + field + "\" must hold the id of something the server keeps"}
}
