package console

import (
	"fmt"
	"strings"

	"iap/internal/admin"
	"iap/internal/plaintext"
)

const (
	leastPrefix = 4  // of an id, behind its kind, must be typed: less is soon a slip
	shownPrefix = 10 // is enough to tell thousands apart
)

// short is the beginning of an id, for a table: enough to type back.
func short(id string) string {
	kind, rest := cutKind(plaintext.Clean(id))
	if len(rest) <= shownPrefix {
		return kind + rest
	}
	return kind + strings.ToValidUTF8(rest[:shownPrefix], "")
}

// target is what an administrator's act was done to: of the relay's own ids the beginning, as lists show them.
func target(id string) string {
	if kind, _ := cutKind(id); kind == "agent-" || kind == "join-" {
		return short(id)
	}
	return id
}

// cutKind divides agent-3f9a… into agent- and 3f9a….
func cutKind(id string) (kind, rest string) {
	i := strings.LastIndex(id, "-") + 1
	return id[:i], id[i:]
}

// named is something with an id that a person can mean.
type named struct {
	id   string
	name string // another way to mean it; may be empty, and of several
}

// pick finds the full id of what was typed: an id, the beginning of one, or a
// name. What could mean two things means nothing: the relay is only ever asked
// for a full id. list is the command that shows what there is.
func pick(kind, typed, list string, all []named) (string, error) {
	var found []string
	for _, one := range all {
		if one.id == typed {
			return one.id, nil
		}
		kind, rest := cutKind(one.id)
		beginning := strings.TrimPrefix(typed, kind)
		if len(beginning) >= leastPrefix && strings.HasPrefix(rest, beginning) || one.name != "" && one.name == typed {
			found = append(found, one.id)
		}
	}
	shown := plaintext.Clean(typed)
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		message := fmt.Sprintf("there is no %s %q", kind, shown)
		if len(typed) < leastPrefix {
			message += fmt.Sprintf("; of an id type at least %d characters", leastPrefix)
		}
		return "", &admin.Error{Code: "unknown_" + kind, Message: message, Hint: list}
	}
	return "", &admin.Error{
		Code: "usage", Hint: "type more of it",
		Message: fmt.Sprintf("%q could be %d %ss: %s", shown, len(found), kind, plaintext.Clean(strings.Join(found, ", "))),
	}
}
