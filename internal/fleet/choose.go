package fleet

// Candidate is an agent that could serve a request.
type Candidate struct {
	Agent    string
	Healthy  bool
	Models   int // how many of those that the request names it says it has
	Load     int // Load.Now
	Capacity int // generations at once; 0: it sets no bound
}

// Choose returns the index of the agent that should serve the request, -1 if
// there is none. One that has the model comes before one that has not, a healthy
// one before one that is not (which is still asked if it is alone: it knows best
// what is wrong), then the one that would be least full with one more. An agent
// without a bound counts as one slot: who says how much it can do gets more.
// tie returns a random number below n.
func Choose(all []Candidate, tie func(n int) int) int {
	best, ties := -1, 0
	for i := range all {
		switch order := compare(all[i], all, best); {
		case order < 0:
			best, ties = i, 1
		case order == 0:
			if ties++; tie(ties) == 0 {
				best = i
			}
		}
	}
	return best
}

// compare is negative if c is better than the best so far.
func compare(c Candidate, all []Candidate, best int) int {
	if best < 0 {
		return -1
	}
	b := all[best]
	switch {
	case c.Models != b.Models:
		return b.Models - c.Models
	case c.Healthy != b.Healthy:
		if c.Healthy {
			return -1
		}
		return 1
	}
	// (load+1)/capacity of both, without the division.
	return (c.Load+1)*max(b.Capacity, 1) - (b.Load+1)*max(c.Capacity, 1)
}
