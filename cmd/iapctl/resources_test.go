package main

import (
	"testing"

	"iap/internal/admin"
)

func TestResourcesSayWhatYouMayAndHowMuch(t *testing.T) {
	r := admin.Resource{
		Actions: []string{"chat", "list-models", "embed"}, Models: []string{"a", "b", "c", "d", "e"}, Aliases: map[string]string{"fast": "a", "default": "b"},
		Uses: []admin.Use{
			{Grant: "engineers", Actions: []string{"chat", "list-models"}, Limits: []admin.Limits{{Text: "60 requests/1m"}, {Text: "200000 tokens/24h"}}},
			{Grant: "search", Actions: []string{"embed"}},
		},
	}
	const want = "chat, list-models\n  at most 60 requests/1m\n  at most 200000 tokens/24h\nembed\nwith a, b, c, d and 1 more\ndefault = b, fast = a"
	if got := offers(r); got != want {
		t.Errorf("%q", got)
	}
	if got := offers(admin.Resource{Actions: []string{"connect"}}); got != "connect" {
		t.Errorf("%q", got)
	}
}
