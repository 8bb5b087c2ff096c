package limit

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Where things lie in the store.
const (
	counterPrefix = "limit/counter/"
	holderPrefix  = "limit/holder/"
)

// kind is what a counter counts.
type kind string

const (
	requests kind = "requests"
	tokens   kind = "tokens"
	slots    kind = "concurrent"
)

// counterKey tells counters apart. The amount allowed is no part of it: who raises a limit does not start anew.
type counterKey struct {
	grant, per, who string
	kind            kind
	window          time.Duration // 0 for slots
}

// id returns the counter's key in the store: a digest, because names may be long and hold any character. Each part goes in
// with its length, so that no two counters can be written alike.
func (k counterKey) id() string {
	return counterPrefix + digest(k.grant, k.per, k.who, string(k.kind), k.window.String())
}

func digest(parts ...string) string {
	var text []byte
	for _, part := range parts {
		text = binary.AppendUvarint(text, uint64(len(part)))
		text = append(text, part...)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// record is what the store keeps of a counter. The sum of charges and leases never exceeds the limit, but for what
// upstreams used beyond what they were allowed.
type record struct {
	Grant   string      `json:"grant"`
	Per     string      `json:"per"`
	Who     string      `json:"who"`
	Kind    kind        `json:"kind"`
	Window  string      `json:"window,omitempty"`
	Charges []charge    `json:"charges,omitempty"` // of all holders, by bucket
	Leases  []lease     `json:"leases,omitempty"`
	Noticed [2][2]int64 `json:"noticed"` // when notice was given, Unix nanoseconds: [enforced, warned][80 %, 100 %]
}

// lease is what one holder has taken out of a counter and not yet booked as charges.
type lease struct {
	Holder     string `json:"holder"`
	Generation int64  `json:"generation"` // rises with each start of the holder
	Seq        int64  `json:"seq"`        // rises with each write, so that one whose outcome is unknown can be recognised
	N          int64  `json:"n"`
	Until      int64  `json:"until"` // Unix nanoseconds: from here on the holder may not spend it, and anybody may book it
}

func decodeRecord(data []byte) (record, error) {
	var rec record
	if err := json.Unmarshal(data, &rec); err != nil {
		return rec, fmt.Errorf("read counter: %w", err)
	}
	last := int64(-1)
	for _, c := range rec.Charges {
		if c.Bucket <= last || c.N < 0 || c.N > maxSum {
			return rec, fmt.Errorf("read counter: charge of %d in bucket %d", c.N, c.Bucket)
		}
		last = c.Bucket
	}
	if len(rec.Charges) > maxCharges {
		return rec, fmt.Errorf("read counter: %d charges", len(rec.Charges))
	}
	for _, l := range rec.Leases {
		if l.N < 0 || l.N > maxSum {
			return rec, fmt.Errorf("read counter: lease of %d for %q", l.N, l.Holder)
		}
	}
	return rec, nil
}

// generation counts the starts of a holder.
type generation struct {
	Holder     string `json:"holder"`
	Generation int64  `json:"generation"`
}
