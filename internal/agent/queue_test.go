package agent

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// clock is a time that only a test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func testQueue(capacity, most, each int) (*queue, *clock) {
	c := &clock{at: time.Unix(1_700_000_000, 0)}
	return newQueue(capacity, queueLimits{max: most, perPrincipal: each, maxWait: time.Minute}, c.now), c
}

func enter(t testing.TB, q *queue, principal string, weight int) *turn {
	t.Helper()
	one, err := q.enter(principal, weight, 1)
	if err != nil {
		t.Fatal(err)
	}
	return one
}

func (t *turn) hasSlot() bool {
	select {
	case <-t.ready:
		return true
	default:
		return false
	}
}

// serveAll ends one running generation after the other and returns who was served, in order.
func serveAll(turns []*turn) (order []string) {
	served := map[*turn]bool{}
	for {
		var current *turn
		for _, one := range turns {
			if one.hasSlot() && !served[one] {
				current = one
			}
		}
		if current == nil {
			return order
		}
		served[current] = true
		order = append(order, current.principal)
		current.leave()
	}
}

func TestSingleRequestOfAnotherIsNextAfterTheOneRunning(t *testing.T) {
	q, _ := testQueue(1, 1000, 1000)
	var turns []*turn
	for range 200 {
		turns = append(turns, enter(t, q, "alice", 1))
	}
	turns[0].leave()
	turns[1].leave() // what alice had before does not count for bob
	bob := enter(t, q, "bob", 1)
	if position, _ := bob.place(); position != 1 {
		t.Errorf("bob is number %d", position)
	}
	turns[2].leave()
	if !bob.hasSlot() {
		t.Error("bob waits for more than one generation")
	}
}

func TestWeightsAreHonoured(t *testing.T) {
	q, _ := testQueue(1, 1000, 1000)
	first := enter(t, q, "first", 1)
	var turns []*turn
	for range 60 {
		turns = append(turns, enter(t, q, "heavy", 3), enter(t, q, "light", 1), enter(t, q, "zero", 0), enter(t, q, "negative", -5))
	}
	first.leave()
	count := map[string]int{}
	for _, who := range serveAll(turns)[:60] {
		count[who]++
	}
	if count["heavy"] != 30 || count["light"] != 10 || count["zero"] != 10 || count["negative"] != 10 {
		t.Errorf("%v", count)
	}
}

func TestEveryPlaceIsTheOneThatIsReached(t *testing.T) {
	q, _ := testQueue(1, 1000, 1000)
	running := enter(t, q, "x", 1)
	var turns []*turn
	for i := range 24 {
		turns = append(turns, enter(t, q, fmt.Sprint("p", i%5), 1+i%4))
	}
	places := map[*turn]int{}
	for _, one := range turns {
		places[one], _ = one.place()
	}
	running.leave()
	for n := 1; len(turns) > 0; n++ {
		for i, one := range turns {
			if one.hasSlot() {
				if places[one] != n {
					t.Errorf("%s was told %d and served as number %d", one.principal, places[one], n)
				}
				turns = append(turns[:i:i], turns[i+1:]...)
				one.leave()
				break
			}
		}
	}
}

func TestFullQueueSaysPositionAndEstimate(t *testing.T) {
	q, c := testQueue(2, 4, 3)
	for range 10 {
		one := enter(t, q, "warm", 1)
		one.generates()
		c.at = c.at.Add(10 * time.Second)
		one.leave()
	}
	quick := enter(t, q, "warm", 1) // refused by its upstream at once: no measure of a generation
	quick.leave()
	for range 2 {
		enter(t, q, "alice", 1)
	}
	waiting := enter(t, q, "alice", 1)
	enter(t, q, "alice", 1)
	enter(t, q, "alice", 1)
	_, err := q.enter("alice", 1, 1)
	if full, ok := err.(*fullError); !ok || full.own != 3 || full.position != 4 || full.wait != 20*time.Second {
		t.Errorf("alice has too many: %+v", err)
	}
	enter(t, q, "bob", 1)
	_, err = q.enter("carol", 1, 1)
	if full, ok := err.(*fullError); !ok || full.own != 0 || full.position != 2 || full.wait != 10*time.Second {
		t.Errorf("all have too many: %+v", err)
	}
	waiting.leave() // whoever leaves frees the place at once
	if _, err := q.enter("carol", 1, 1); err != nil {
		t.Errorf("a place is free: %v", err)
	}
}

func TestWhatWaitsIsBoundedInBytes(t *testing.T) {
	q, _ := testQueue(1, 1000, 1000)
	enter(t, q, "x", 1)
	if _, err := q.enter("alice", 1, maxQueuedBytes); err != nil {
		t.Errorf("one alone may have any size: %v", err)
	}
	full, ok := error(nil), false
	if _, full = q.enter("bob", 1, 1); full == nil {
		t.Error("the queue holds more than it may")
	}
	q, _ = testQueue(1, 1000, 1000)
	enter(t, q, "x", 1)
	for range 2 {
		if _, err := q.enter("alice", 1, maxLineBytes/2); err != nil {
			t.Error(err)
		}
	}
	var of *fullError
	if _, full = q.enter("alice", 1, 1); full != nil {
		of, ok = full.(*fullError)
	}
	if !ok || of.own != 2 {
		t.Errorf("alice holds more than she may: %v", full)
	}
	if _, err := q.enter("bob", 1, maxLineBytes); err != nil {
		t.Errorf("bob: %v", err)
	}
}

func TestLeavingTwiceFreesOnce(t *testing.T) {
	q, _ := testQueue(1, 8, 8)
	a, b, c := enter(t, q, "a", 1), enter(t, q, "b", 1), enter(t, q, "c", 1)
	a.leave()
	a.leave()
	if !b.hasSlot() || c.hasSlot() {
		t.Errorf("b %t, c %t", b.hasSlot(), c.hasSlot())
	}
	b.leave()
	c.leave()
	if len(q.lines) != 0 || q.running != 0 || q.waiting != 0 || q.bytes != 0 {
		t.Errorf("left behind: %+v", q)
	}
}

// TestNobodyStarves: whatever others do, a request waits for no more generations than their weights entitle them to.
func TestNobodyStarves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.IntRange(1, 4).Draw(t, "capacity")
		q, _ := testQueue(capacity, 1000, 1000)
		weights := []int{1, 2, 3, 7, 16}
		var running, waiting []*turn
		left := map[*turn]int{} // how many others may be served before it
		settle := func() {
			var still []*turn
			for _, one := range waiting {
				if one.hasSlot() {
					running = append(running, one)
					for other := range left {
						if left[other]--; other != one && left[other] < 0 {
							t.Fatalf("%s was passed too often", other.principal)
						}
					}
					delete(left, one)
				} else {
					still = append(still, one)
				}
			}
			waiting = still
			if q.running != len(running) || q.waiting != len(waiting) || q.running > capacity || q.waiting > 0 && q.running < capacity {
				t.Fatalf("%d run, %d wait, the queue says %d and %d", len(running), len(waiting), q.running, q.waiting)
			}
		}
		drop := func(list *[]*turn, label string) {
			if len(*list) == 0 {
				return
			}
			i := rapid.IntRange(0, len(*list)-1).Draw(t, label)
			one := (*list)[i]
			*list = append((*list)[:i:i], (*list)[i+1:]...)
			delete(left, one)
			one.leave()
			settle()
		}
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				who := rapid.IntRange(0, len(weights)-1).Draw(t, "who")
				one, err := q.enter(fmt.Sprint(who), weights[who], 1)
				if err != nil {
					t.Fatal(err)
				}
				waiting = append(waiting, one)
				if !one.hasSlot() {
					left[one] = allowance(q, one, weights)
				}
				settle()
			},
			"finish": func(*rapid.T) { drop(&running, "finished") },
			"cancel": func(*rapid.T) { drop(&waiting, "canceled") },
		})
	})
}

// allowance is how many may come before a turn: its own line's, and of each other one what is due until then.
func allowance(q *queue, one *turn, weights []int) int {
	l := q.lines[one.principal]
	due, most := l.dueLocked(len(l.turns)-1), len(l.turns)-1
	for who, weight := range weights {
		if fmt.Sprint(who) != one.principal {
			most += int((due-q.clock)/costOf(weight)) + 1
		}
	}
	return most
}
