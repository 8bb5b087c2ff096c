package filter

import (
	"reflect"
	"strings"

	"iap/internal/audit"
)

// fields are the places of the event's fields by their names in the schema.
func fields() map[string]int {
	all := map[string]int{}
	for i, f := range reflect.VisibleFields(reflect.TypeFor[audit.Event]()) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			all[name] = i
		}
	}
	return all
}

// seen is what an expression sees of a record: numbers of one kind, so that they can
// be compared with any, and a detail that has what is asked for or "".
func seen(e *audit.Event, fields map[string]int, into map[string]any) {
	v := reflect.ValueOf(e).Elem()
	for name, i := range fields {
		switch f := v.Field(i); f.Kind() {
		case reflect.Uint64:
			into[name] = int(f.Uint())
		case reflect.Int, reflect.Int64:
			into[name] = int(f.Int())
		default:
			into[name] = f.Interface()
		}
	}
	if e.Detail == nil {
		into["detail"] = map[string]string{}
	}
}
