package modelapi

import (
	"strings"
	"testing"
)

// benchmarkBody is a chat of about 4 KiB, as an SDK sends it.
func benchmarkBody() []byte {
	const turn = `{"role":"user","content":[{"type":"text","text":"` + "How does a request find its way through the house? Tell it in a few plain words. " + `"}]},` +
		`{"role":"assistant","content":"It knocks, says who it is, and is led to the one room it may enter."}`
	tools := `[{"type":"function","function":{"name":"look","description":"Looks something up.","parameters":{"type":"object","properties":{"query":{"type":"string"}}}}}]`
	return []byte(`{"model":"phi3:latest","temperature":0.7,"stream":true,"stream_options":{"include_usage":true},"user":"me","metadata":{"trace":"1"},"tools":` +
		tools + `,"messages":[` + strings.Repeat(turn+",", 15) + turn + `]}`)
}

func BenchmarkClassifyAndRewrite(b *testing.B) {
	table := Default()
	in := post("ollama", "/v1/chat/completions", string(benchmarkBody()))
	o := Obligations{Subject: "5f0c1f9e", CacheSalt: "salt", MaxOutput: 2048}
	b.SetBytes(int64(len(in.Body)))
	b.ReportAllocs()
	for b.Loop() {
		c, err := table.Classify(in)
		if err != nil {
			b.Fatal(err)
		}
		again := in
		again.Body = c.Body
		if _, err := table.Rewrite(again, c, o); err != nil {
			b.Fatal(err)
		}
	}
}
