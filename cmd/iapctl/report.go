package main

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"

	"iap/internal/connect"
)

// connectionOf describes where a resource is served.
func connectionOf(run connect.Running) connectionDocument {
	doc := connectionDocument{
		Resource: run.Resource, Kind: run.Kind, PID: run.PID, Port: run.Port, Listen: run.Addrs, LocalKey: run.LocalKey,
		LoginNeeded: run.LoginNeeded,
	}
	if run.Kind != "tcp" {
		doc.URL = "http://" + localAddr(run.Port)
	}
	if run.Kind == "model" {
		doc.OpenAI = doc.URL + "/v1"
	}
	return doc
}

func localAddr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// reportConnected prints what is connected: one line of JSON, or a screen to read and paste from.
func (a *app) reportConnected(doc connectDocument) error {
	if a.output == "json" {
		if err := json.NewEncoder(a.out).Encode(doc); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
		return nil
	}
	for i, c := range doc.Connections {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		a.reportOne(doc, c)
	}
	return nil
}

func (a *app) reportOne(doc connectDocument, c connectionDocument) {
	s := a.ui.out
	name, at := s.bold.Render(clean(c.Resource)), s.bold.Render(firstOf(c.URL, localAddr(c.Port)))
	switch {
	case c.Moved != "":
		fmt.Fprintf(a.out, "%s. %s is on %d and will stay there.\n", c.Moved, clean(c.Resource), c.Port)
		fallthrough
	default:
		fmt.Fprintf(a.out, "%s %s listens on %s\n", s.good.Render("✓"), name, at)
	case c.Already:
		fmt.Fprintf(a.out, "%s %s listens on %s already (pid %d)\n", s.good.Render("✓"), name, at, c.PID)
	}
	session := ""
	if doc.Expires != nil {
		session = "until " + clock(*doc.Expires) + ", renewed before that if the login allows"
	}
	offline := ""
	if !c.Online {
		offline = "no agent serves it right now; requests get an error until one does"
	}
	login := ""
	if c.LoginNeeded {
		login = "needed: requests get a 401 until you type " + a.inProfile("iapctl login")
	}
	use := c.OpenAI
	if use != "" {
		use = "export OPENAI_BASE_URL=" + use
		if c.LocalKey != "" {
			use += "\nexport OPENAI_API_KEY=" + c.LocalKey
		}
	}
	end := "Ctrl-C ends it"
	if doc.Detached || c.Already {
		end = a.inProfile("iapctl disconnect " + clean(c.Resource))
	}
	a.pairs(
		a.out, s, 2,
		[2]string{"leads to", fmt.Sprintf("%s (%s) through %s", clean(c.Resource), clean(c.Kind), clean(doc.Relay))},
		[2]string{"as", clean(doc.Principal)}, [2]string{"session", session}, [2]string{"offline", offline}, [2]string{"login", login},
		[2]string{"use it", use}, [2]string{"local key", c.LocalKey}, [2]string{"end it", end},
	)
	if c.Docker != "" {
		fmt.Fprintf(a.out, "\n  %s\n", c.Docker)
	}
}
