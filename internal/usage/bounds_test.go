package usage

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"iap/internal/state"
)

func TestOnePrincipalsNamesTakeNoPlaceOfOthers(t *testing.T) {
	c := newClock(noon)
	s := openStore(t, c)
	b := openBook(t, s, "r", c)
	const asked = 3000
	for i := range asked {
		b.Add(chat("corp/mallory", fmt.Sprint("model-", i)))
		if i%500 == 0 {
			flush(t, b)
		}
	}
	b.Add(chat("corp/alice", "phi3"))
	flush(t, b)
	all := ask(t, b, Query{By: ByModel})
	if len(all.Rows) > maxOfPrincipal+2 {
		t.Errorf("%d models", len(all.Rows))
	}
	if all.Total.Requests != asked+1 || all.Rows[0].Name != Other || sum(all.Rows) != asked+1 {
		t.Errorf("total %d, rows %d, first %s", all.Total.Requests, sum(all.Rows), all.Rows[0].Name)
	}
	if mine := ask(t, b, Query{By: ByModel, Principal: "corp/alice"}); len(mine.Rows) != 1 || mine.Rows[0].Name != "phi3" {
		t.Errorf("alice has lost her place: %+v", mine.Rows)
	}
	if hers := ask(t, b, Query{By: ByPrincipal, Principal: "corp/mallory"}); hers.Total.Requests != asked || len(hers.Rows) != 1 {
		t.Errorf("mallory: %d in %d rows", hers.Total.Requests, len(hers.Rows))
	}
}

func sum(rows []Row) (n int64) {
	for _, r := range rows {
		n += r.Requests
	}
	return n
}

func TestTooManyPrincipalsLoseTheirNamesAndNoCount(t *testing.T) {
	c := newClock(noon)
	s := openStore(t, c)
	b := openBook(t, s, "r", c)
	long := strings.Repeat("x", 240)
	const asked = maxFresh + 4000
	for i := range asked {
		b.Add(chat(fmt.Sprint("ci/", long, i), fmt.Sprint(long, i)))
		if i%maxFresh == 0 {
			flush(t, b)
		}
	}
	flush(t, b)
	items := 0
	for item, err := range state.All(t.Context(), s, prefix) {
		if err != nil {
			t.Fatal(err)
		}
		if items++; len(item.Value) > state.MaxValue {
			t.Errorf("%s has %d bytes", item.Key, len(item.Value))
		}
	}
	if items != 3*shards {
		t.Errorf("%d items, want %d", items, 3*shards)
	}
	r := ask(t, b, Query{By: ByPrincipal, Top: 10})
	if r.Total.Requests != asked || sum(r.Rows)+r.Others.Requests != asked || len(r.Rows) != 10 || r.Rows[0].Name != Other {
		t.Errorf("total %d, rows %d and others %d of %d", r.Total.Requests, sum(r.Rows), r.Others.Requests, r.OtherRows)
	}
}

func TestAStoreThatIsAwayForDaysCostsNamesAndNoCount(t *testing.T) {
	c := newClock(noon)
	s := openStore(t, c)
	b := openBook(t, s, "r", c)
	s.writes, s.reads = true, true
	asked := 0
	for range 25 { // hours
		for i := range 1500 {
			b.Add(chat(fmt.Sprint("corp/", i), "phi3"))
			asked++
		}
		if b.Flush(t.Context()) == nil {
			t.Fatal("the store is away, and a flush says it is not")
		}
		waiting := 0
		for _, d := range b.pending {
			waiting += d.size()
		}
		if waiting > maxPending {
			t.Fatalf("%d series wait", waiting)
		}
		c.advance(time.Hour)
	}
	s.writes, s.reads = false, false
	if r := ask(t, b, Query{By: ByPrincipal}); r.Total.Requests != int64(asked) {
		t.Errorf("before it is written: %d of %d", r.Total.Requests, asked)
	}
	flush(t, b)
	for _, per := range []Level{Hour, Day} {
		if r := ask(t, b, Query{By: ByPrincipal, Per: per}); r.Total.Requests != int64(asked) || len(r.Rows)+r.OtherRows < 1500 {
			t.Errorf("by the %s: %d of %d, %d names", per, r.Total.Requests, asked, len(r.Rows))
		}
	}
}

func TestNamesAreShortValidAndOnOneLine(t *testing.T) {
	c := newClock(noon)
	b := openBook(t, openStore(t, c), "r", c)
	e := chat("corp/alice", "bad\xff\nname")
	e.Groups = []string{"one\ntwo"}
	e.Resource = strings.Repeat("é", maxName)
	b.Add(e)
	e = chat("corp/alice", "")
	for i := range 100 {
		e.Groups = append(e.Groups, fmt.Sprint("g", i))
	}
	b.Add(e)
	flush(t, b)
	if r := ask(t, b, Query{By: ByModel}); r.Rows[0].Name != None || r.Rows[1].Name != "bad? name" {
		t.Errorf("%+v", r.Rows)
	}
	if r := ask(t, b, Query{By: ByResource}); len(r.Rows) != 2 || len(r.Rows[1].Name) > maxName+2 && len(r.Rows[0].Name) > maxName+2 {
		t.Errorf("%+v", r.Rows)
	}
	if r := ask(t, b, Query{By: ByGroup}); len(r.Rows) != MaxGroups+1 {
		t.Errorf("%d groups", len(r.Rows))
	}
}

func TestGroupsThatManyShareCostNobodysName(t *testing.T) {
	c := newClock(noon)
	s := openStore(t, c)
	b := openBook(t, s, "r", c)
	const principals = 4000
	for i := range principals {
		e := chat(fmt.Sprintf("corp/%036d", i), "phi3")
		e.Groups = nil
		for g := range 20 {
			e.Groups = append(e.Groups, fmt.Sprintf("%036d", (i*7+g*g)%300))
		}
		b.Add(e)
	}
	flush(t, b)
	if r := ask(t, b, Query{By: ByPrincipal}); len(r.Rows)+r.OtherRows != principals {
		t.Errorf("%d of %d principals have a name", len(r.Rows)+r.OtherRows, principals)
	}
	if r := ask(t, b, Query{By: ByGroup}); len(r.Rows) != 300 || sum(r.Rows) < principals*15 {
		t.Errorf("%d groups with %d requests", len(r.Rows), sum(r.Rows))
	}
}

func TestAModelServerThatLiesSpoilsNothing(t *testing.T) {
	c := newClock(noon)
	s := openStore(t, c)
	b := openBook(t, s, "r", c)
	for range 3 {
		e := chat("corp/alice", "phi3")
		e.TokensIn, e.TokensOut, e.Duration, e.TTFT = math.MaxInt64, math.MinInt64, math.MaxInt64, math.MaxInt64
		b.Add(e)
		flush(t, b)
	}
	if r := ask(t, b, Query{}); r.Total.Requests != 3 || r.Total.TokensIn != 3*maxTokens || r.Total.TokensOut != 0 || r.Total.Duration != 3*maxDuration {
		t.Errorf("%+v", r.Total)
	}
}
