package dev

import "time"

// Nothing in the provider may grow without end; a development provider never has this much to do at once.
const shelfSize = 4096

// shelf keeps values until they expire. Past shelfSize the oldest goes. The caller locks.
type shelf[V any] struct {
	items map[string]shelved[V]
	order []string // by age; may name keys that are gone
}

type shelved[V any] struct {
	value   V
	expires time.Time
}

func newShelf[V any]() *shelf[V] { return &shelf[V]{items: map[string]shelved[V]{}} }

func (s *shelf[V]) put(key string, value V, expires time.Time) {
	if _, known := s.items[key]; !known {
		s.order = append(s.order, key)
	}
	s.items[key] = shelved[V]{value, expires}
	for len(s.order) > shelfSize {
		delete(s.items, s.order[0])
		s.order = s.order[1:]
	}
}

// get returns a value that is there and has not expired.
func (s *shelf[V]) get(key string, now time.Time) (V, bool) {
	item, ok := s.items[key]
	if !ok || now.After(item.expires) {
		var none V
		return none, false
	}
	return item.value, true
}

func (s *shelf[V]) remove(key string) { delete(s.items, key) }

// each calls f for every value, expired or not, until f returns false.
func (s *shelf[V]) each(f func(key string, value V) bool) {
	for key, item := range s.items {
		if !f(key, item.value) {
			return
		}
	}
}
