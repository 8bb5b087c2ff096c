package admin

import (
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"
)

// A question of a GET is its query: the fields of a struct by their JSON names,
// each a text or a number and each once.

// queryOf writes a question, without what is left out.
func queryOf(q any) (url.Values, error) {
	values := url.Values{}
	v := reflect.ValueOf(q)
	for name, i := range queryFields(v.Type()) {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			if f.Len() > 0 {
				values.Set(name, f.String())
			}
		case reflect.Int:
			if !f.IsZero() {
				values.Set(name, strconv.FormatInt(f.Int(), 10))
			}
		default:
			return nil, fmt.Errorf("field %s of a question is a %s", name, f.Kind())
		}
	}
	return values, nil
}

// readQuery fills q, a pointer to a question. What is unknown, empty or stands
// twice is refused: a filter that nobody reads would show more than was asked for.
func readQuery(raw string, q any) error {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return fmt.Errorf("the query cannot be read: %w", err)
	}
	v := reflect.ValueOf(q).Elem()
	fields := queryFields(v.Type())
	for name, all := range values {
		i, known := fields[name]
		switch {
		case !known:
			return fmt.Errorf("unknown parameter %q", name)
		case len(all) != 1 || all[0] == "":
			return fmt.Errorf("parameter %q must stand once and not be empty", name)
		}
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString(all[0])
		case reflect.Int:
			n, err := strconv.Atoi(all[0])
			if err != nil || n < 0 {
				return fmt.Errorf("parameter %q must be a whole number", name)
			}
			f.SetInt(int64(n))
		default:
			return fmt.Errorf("parameter %q cannot be read", name)
		}
	}
	return nil
}

// queryFields are the places of the fields by their JSON names.
func queryFields(t reflect.Type) map[string]int {
	fields := map[string]int{}
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "" && name != "-" {
			fields[name] = i
		}
	}
	return fields
}

func withQuery(path string, values url.Values) string {
	if len(values) == 0 {
		return path
	}
	return path + "?" + values.Encode()
}
