package relay

import (
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"iap/tunnel"
)

// TestAnswerThatAnHTTP2ClientDoesNotReadEndsWithItsRight has a client that gives the answer no window at all: nothing is written, so no
// write fails, and its connection is well.
func TestAnswerThatAnHTTP2ClientDoesNotReadEndsWithItsRight(t *testing.T) {
	chat := newSlowChat()
	s := newSystem(t, keyGrants)
	s.startAgent(served{"phi3", "model", newModelServer(t, chat.serve).URL})
	owner := api(t, s.user(nil).open(tunnel.Interactive))
	k := s.newKey(owner, program("mine"))
	c := s.h2(t)
	must(t, c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
	body := chatBody("phi3", true)
	id := c.send([]byte(body), ":method", "POST", ":scheme", "https", ":authority", s.name, ":path", "/r/phi3/v1/chat/completions",
		"authorization", "Bearer "+k.Text, "content-type", "application/json", "content-length", strconv.Itoa(len(body)))
	await(t, chat.begun, "the answer has begun")
	if got := c.verdict(id); got != "200" {
		t.Fatal(got)
	}
	_, err := owner.RevokeKey(within(t), "mine")
	must(t, err)
	await(t, chat.ended, "the model is freed")
	for got := ""; got != "closed" && !strings.HasSuffix(got, "ERROR") && got != "CANCEL"; {
		got = c.verdict(id)
	}
}
