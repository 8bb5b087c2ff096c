package modelapi

import (
	"fmt"
	"strings"
)

// place is where a request names its model.
type place int

const (
	nowhere        place = iota
	inModel              // the body's "model"
	inModelName          // the body's "model", or else "name"
	inCreate             // as inModelName, and the body's "from"
	inCopy               // the body's "source" and "destination"
	inLoRA               // the body's "lora_name"
	inPath               // a parameter of the path
	inQuery              // the query's "model"
	inMultipart          // a field of a form
	inUpload             // nowhere: the body is a file
	inArray              // nowhere: the body is a JSON array
	inSlotAction         // nowhere: the query's "action" says what is done
	inMessages           // in messages behind an upgrade, which are not read
	inConversation       // nowhere: path or query name something the server keeps
	inDispatch           // in parts of the body, each for another handler
)

// parsePlace reads the data's prose. Longer beginnings stand before the shorter ones they contain.
func parsePlace(prose string) (place, error) {
	for _, known := range []struct {
		prefix string
		place  place
	}{
		{"none", nowhere},
		{"JSON model else name; also from", inCreate},
		{"JSON model else name", inModelName},
		{"JSON source + destination", inCopy},
		{"JSON lora_name", inLoRA},
		{"JSON model", inModel},
		{"JSON id (+model", inModel},
		{"JSON body is an array", inArray},
		{"path (conv_id", inConversation},
		{"path / ?conv_id", inConversation},
		{"path", inPath},
		{"query ?model=", inQuery},
		{"query ?action=", inSlotAction},
		{"multipart", inMultipart},
		{"WS message", inMessages},
		{"instances[]", inDispatch},
	} {
		if strings.HasPrefix(prose, known.prefix) {
			return known.place, nil
		}
	}
	return 0, fmt.Errorf("unknown place of the model %q", prose)
}
