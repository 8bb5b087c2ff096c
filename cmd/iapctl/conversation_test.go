package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestAnswerIsWrittenAsItComes(t *testing.T) {
	body := ": ping\n\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n" +
		"data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"lo\"},\"finish_reason\":\"stop\"}]}\n\n" +
		"data: {\"choices\":[],\"usage\":{}}\n\ndata: [DONE]\n\n"
	var out bytes.Buffer
	answer, err := readEvents(strings.NewReader(body), &out)
	if err != nil || out.String() != "Hello" || answer.text != "Hello" || answer.finish != "stop" {
		t.Fatalf("%+v, %q, %v", answer, out.String(), err)
	}
}

func TestAnswerThatWasCutIsAnError(t *testing.T) {
	for name, body := range map[string]string{
		"no end":    "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n",
		"bad chunk": "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\ndata: {\"cho",
	} {
		var out bytes.Buffer
		answer, err := readEvents(strings.NewReader(body), &out)
		var f *failure
		if !errors.As(err, &f) || f.code != "answer_cut" || answer.text != "Hel" {
			t.Errorf("%s: %+v, %v", name, answer, err)
		}
	}
}

func TestErrorInTheStreamKeepsItsCode(t *testing.T) {
	body := "data: {\"error\":{\"message\":\"the policy was changed\",\"code\":\"policy_changed\"}}\n\n"
	_, err := readEvents(strings.NewReader(body), &bytes.Buffer{})
	if f := failureOf(err); f.code != "policy_changed" || f.exit() != exitDenied {
		t.Errorf("%+v", f)
	}
}

func FuzzReadEvents(f *testing.F) {
	f.Add("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: [DONE]\n")
	f.Add("data: {\"error\":{\"code\":3}}\n")
	f.Fuzz(func(_ *testing.T, body string) { _, _ = readEvents(strings.NewReader(body), &bytes.Buffer{}) })
}

func TestWaitIsSaidInWordsOfAPerson(t *testing.T) {
	for header, want := range map[string]string{
		"7": "7 seconds", "119": "119 seconds", "130": "about 3 minutes", "86400": "about 24 hours",
		"Fri, 31 Dec 2027 23:59:59 GMT": "Fri, 31 Dec 2027 23:59:59 GMT",
	} {
		if got := waitText(header); got != want {
			t.Errorf("Retry-After %s reads %q, want %q", header, got, want)
		}
	}
}
