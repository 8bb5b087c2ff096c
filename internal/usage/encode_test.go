package usage

import (
	"testing"
	"time"
)

func FuzzDecode(f *testing.F) {
	t := newTable(maxSeries)
	c := t.row(series{principal: "corp/alice", groups: "ml\nstaff", resource: "phi3", model: "phi3:latest", action: "chat", grant: "g"})
	c.count(&Entry{TokensIn: 10, TokensOut: 100, TTFT: time.Second, Duration: time.Minute})
	f.Add(encode(t, "run.1"))
	f.Add([]byte{format, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		got := newTable(maxSeries)
		last, err := decode(data, func(s series, c *Counts) { got.row(s).Add(c) })
		if err != nil {
			return
		}
		// What can be read can be written, and is the same when it is read again.
		again := newTable(maxSeries)
		if _, err := decode(encode(got, last), func(s series, c *Counts) { again.row(s).Add(c) }); err != nil || len(again.rows) != len(got.rows) {
			t.Fatalf("%d rows became %d, %v", len(got.rows), len(again.rows), err)
		}
	})
}
