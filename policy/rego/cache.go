package rego

import (
	"container/list"
	"sync"
	"time"

	"iap/policy"
)

// decisionCache keeps the most recently used decisions of one loaded policy. It
// lives and dies with it, so a reload cannot leave an old answer behind, not
// even one whose evaluation had begun before.
type decisionCache struct {
	size int

	mu      sync.Mutex
	entries map[cacheKey]*list.Element // guarded by mu; values are *cacheEntry
	recent  *list.List                 // guarded by mu; front is the latest used
}

type cacheEntry struct {
	key      cacheKey
	decision policy.Decision
}

func newDecisionCache(size int) *decisionCache {
	return &decisionCache{size: size, entries: make(map[cacheKey]*list.Element), recent: list.New()}
}

// get returns a decision that still holds at now.
func (c *decisionCache) get(key cacheKey, now time.Time) (policy.Decision, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	element, found := c.entries[key]
	if !found {
		return policy.Decision{}, false
	}
	entry := element.Value.(*cacheEntry)
	if until := entry.decision.Until; !until.IsZero() && !now.Before(until) {
		c.recent.Remove(element)
		delete(c.entries, key)
		return policy.Decision{}, false
	}
	c.recent.MoveToFront(element)
	return entry.decision, true
}

// put keeps a decision and lets go of the one not used for longest.
func (c *decisionCache) put(key cacheKey, d policy.Decision) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if element, found := c.entries[key]; found {
		element.Value.(*cacheEntry).decision = d
		c.recent.MoveToFront(element)
		return
	}
	for len(c.entries) >= c.size {
		oldest := c.recent.Back()
		delete(c.entries, oldest.Value.(*cacheEntry).key)
		c.recent.Remove(oldest)
	}
	c.entries[key] = c.recent.PushFront(&cacheEntry{key: key, decision: d})
}
