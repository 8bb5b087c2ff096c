package modelapi

import (
	"fmt"
	"strings"
	"testing"
)

// Whatever is looked at, decided on or remembered for each of them is bounded in number, not by the body's size alone.
func TestWhatOneBodyNamesIsBoundedInNumber(t *testing.T) {
	const head = `{"model":"m","messages":[{"role":"user","content":"c"}],`
	all := func(n int, one string) string {
		var b strings.Builder
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(strings.ReplaceAll(one, "%", fmt.Sprint(i)))
		}
		return b.String()
	}
	for _, try := range []struct {
		name, begin, one, end string
		most                  int
		want                  string
	}{
		{"names of an object", `"x":{`, `"k%":0`, `}}`, maxNames, "json_too_many_names"},
		{"names at the top", ``, `"k%":0`, `}`, maxNames - 2, "json_too_many_names"},
		{"adapters by name", `"lora_path":[`, `"a%"`, `]}`, maxAdapters, "too_many_adapters"},
		{"adapters by number", `"lora":[`, `{"id":%}`, `]}`, maxAdapters, "too_many_adapters"},
		{"adapters of parameters", `"parameters":[`, `{"adapter_id":"a%"}`, `]}`, maxAdapters, "too_many_adapters"},
		{"one adapter over and over", `"lora_path":[`, `"a"`, `]}`, MaxInputs, "too_many_inputs"},
		{"sessions", `"session_params":[`, `{"id":"s%"}`, `]}`, maxIDs, "too_many_ids"},
		{"one session over and over", `"session_params":[`, `{"id":"s"}`, `]}`, MaxInputs, "too_many_inputs"},
		{"parameters", `"sampling_params":[`, `{}`, `]}`, MaxChoices, "too_many_choices"},
		{"tools", `"tools":[`, `{}`, `]}`, maxTools, "too_many_tools"},
		{"tools in many lists", `"x":[`, `{"tools":[1]}`, `]}`, maxTools, "too_many_tools"},
		{"tools of a namespace", `"tools":[{"type":"namespace","tools":[`, `1`, `]}]}`, maxTools - 1, "too_many_tools"},
	} {
		for n, want := range map[int]string{try.most: "", try.most + 1: try.want} {
			_, err := Default().Classify(on("m", post("sglang", "/v1/chat/completions", head+try.begin+all(n, try.one)+try.end)))
			if code(err) != want {
				t.Errorf("%d %s: got %v, want %q", n, try.name, err, want)
			}
		}
	}
}
