package rego

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
)

// cacheKey identifies a question: the hash of all of it. Each part goes in with
// its length or count in front, so that no two questions share an encoding.
type cacheKey [sha256.Size]byte

// keyBuffer holds the encoding of most questions without growing.
const keyBuffer = 1024

func (q question) key() cacheKey {
	e := encoder(make([]byte, 0, keyBuffer))
	p := q.Principal
	e.text(p.Issuer)
	e.text(p.Subject)
	e.list(p.Groups)
	e.count(len(p.Claims))
	for _, name := range sortedKeys(p.Claims) {
		e.text(name)
		e.list(p.Claims[name])
	}
	e.text(p.MFASource)
	e.text(p.ACR)
	e.text(p.Binding)
	e.flags(q.mfaHeld, q.mfaAsserted, p.Workload, q.Egress)
	e = binary.BigEndian.AppendUint64(e, uint64(q.authTime))
	e.text(q.Resource.Name)
	e.text(q.Resource.Kind)
	e.count(len(q.Resource.Labels))
	for _, name := range sortedKeys(q.Resource.Labels) {
		e.text(name)
		e.text(q.Resource.Labels[name])
	}
	e.text(q.Action)
	e.text(q.Model)
	e.list(q.Media)
	e.text(q.Via)
	return sha256.Sum256(e)
}

func sortedKeys[V any](m map[string]V) []string {
	if len(m) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(m))
}

type encoder []byte

func (e *encoder) count(n int) { *e = binary.AppendUvarint(*e, uint64(n)) }

func (e *encoder) text(s string) {
	e.count(len(s))
	*e = append(*e, s...)
}

func (e *encoder) list(l []string) {
	e.count(len(l))
	for _, s := range l {
		e.text(s)
	}
}

func (e *encoder) flags(list ...bool) {
	for _, b := range list {
		if b {
			*e = append(*e, 1)
		} else {
			*e = append(*e, 0)
		}
	}
}
