package dev

import (
	_ "embed"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"strings"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

//go:embed pages.html
var pagesHTML string

// page is what the one template shows: a choice of users, a form for a code, or a sentence.
type page struct {
	Title, Text string
	Problem     string

	// The form, if Action is set.
	Action       string
	Hidden       map[string]string
	Users        []User
	Selected     string
	Yes, No      string
	AskCode      bool
	AskPassword  bool
	UserCode     string
	ClientID     string
	ScopesWanted []string
}

func (p *Provider) render(w http.ResponseWriter, status int, content page) {
	parsed, err := template.New("page").Parse(pagesHTML)
	if err != nil {
		http.Error(w, "page template: "+err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'")
	w.WriteHeader(status)
	if err := parsed.Execute(w, content); err != nil {
		p.log.Debug("development provider: page not delivered", "error", err)
	}
}

func (p *Provider) showHome(w http.ResponseWriter, _ *http.Request) {
	p.render(w, http.StatusOK, page{Title: "Development sign-in", Text: "This is the identity provider of a development system. Nothing to do here."})
}

// choice is the form both flows end in.
func (p *Provider) choice(action, clientID string, asked []string) page {
	users := p.store.enabledUsers()
	content := page{
		Action: action, Users: users, ClientID: clientID, ScopesWanted: asked,
		Title: "Sign in to " + clientID,
	}
	for _, u := range users {
		content.AskPassword = content.AskPassword || u.Password != ""
	}
	if len(users) > 0 {
		content.Selected = users[0].Subject
	}
	return content
}

// showDevice is where verification_uri leads, with a form for the code, and verification_uri_complete, with the code in the query.
func (p *Provider) showDevice(w http.ResponseWriter, r *http.Request) {
	typed := r.URL.Query().Get("user_code")
	if typed == "" {
		p.render(w, http.StatusOK, page{Title: "Sign in on a device", Text: "Enter the code that the program shows.", Action: devicePath, AskCode: true})
		return
	}
	p.deviceChoice(w, http.StatusOK, typed, "")
}

func (p *Provider) deviceChoice(w http.ResponseWriter, status int, typed, problem string) {
	d, err := p.store.waitingDevice(typed)
	if err != nil {
		p.render(w, http.StatusNotFound, page{
			Title: "Sign in on a device", Problem: "No program waits for this code. It may have been used or have expired.",
			Action: devicePath, AskCode: true,
		})
		return
	}
	content := p.choice(devicePath, d.state.ClientID, d.state.Scopes)
	content.Text = "A program asks to sign in as you. Go on only if the code on its screen is this one, and if you started it."
	content.UserCode, content.Problem = d.userCode, problem
	content.Hidden = map[string]string{"user_code": d.userCode}
	content.Yes, content.No = "Approve", "Deny"
	p.render(w, status, content)
}

func (p *Provider) decideDevice(w http.ResponseWriter, r *http.Request) {
	typed, subject := r.PostFormValue("user_code"), r.PostForm.Get("subject")
	approve := r.PostForm.Get("decision") == "approve"
	err := p.store.decideDevice(typed, subject, r.PostForm.Get("password"), approve)
	switch {
	case errors.Is(err, errNoDevice):
		p.deviceChoice(w, http.StatusNotFound, typed, "")
	case err != nil:
		p.deviceChoice(w, http.StatusForbidden, typed, sentence(err))
	case approve:
		p.log.Info("development provider: device approved", "subject", subject)
		p.render(w, http.StatusOK, page{Title: "Approved", Text: "You may close this page and go back to the program."})
	default:
		p.log.Info("development provider: device denied")
		p.render(w, http.StatusOK, page{Title: "Denied", Text: "The program was told. You may close this page."})
	}
}

// showLogin is the page of the authorization code flow; op sent the browser here with the id of its request.
func (p *Provider) showLogin(w http.ResponseWriter, r *http.Request) {
	p.loginChoice(w, r, http.StatusOK, "")
}

func (p *Provider) loginChoice(w http.ResponseWriter, r *http.Request, status int, problem string) {
	id := r.FormValue("id")
	request, err := p.store.AuthRequestByID(r.Context(), id)
	if err != nil {
		p.render(w, http.StatusNotFound, page{Title: "Sign in", Problem: "This sign-in has expired. Start again from the program."})
		return
	}
	content := p.choice(loginPath, request.GetClientID(), request.GetScopes())
	content.Text = "A program on this machine asks to sign in as you."
	content.Hidden, content.Problem = map[string]string{"id": id}, problem
	content.Yes, content.No = "Sign in", "Cancel"
	p.render(w, status, content)
}

func (p *Provider) decideLogin(w http.ResponseWriter, r *http.Request) {
	id, subject := r.PostFormValue("id"), r.PostForm.Get("subject")
	request, err := p.store.AuthRequestByID(r.Context(), id)
	if err != nil {
		p.loginChoice(w, r, http.StatusNotFound, "")
		return
	}
	if r.PostForm.Get("decision") != "approve" {
		p.cancelLogin(w, r, request)
		return
	}
	if err := p.store.finishLogin(id, subject, r.PostForm.Get("password")); err != nil {
		p.loginChoice(w, r, http.StatusForbidden, sentence(err))
		return
	}
	p.log.Info("development provider: signed in", "subject", subject)
	http.Redirect(w, r, callbackPath+"?id="+url.QueryEscape(id), http.StatusSeeOther)
}

// cancelLogin tells the client that the person would not (RFC 6749, section 4.1.2.1).
func (p *Provider) cancelLogin(w http.ResponseWriter, r *http.Request, request op.AuthRequest) {
	target, err := url.Parse(request.GetRedirectURI())
	if err != nil {
		p.render(w, http.StatusBadRequest, page{Title: "Sign in", Problem: "The program gave no usable address to return to."})
		return
	}
	_ = p.store.DeleteAuthRequest(r.Context(), request.GetID()) // never fails
	query := target.Query()
	query.Set("error", string(oidc.AccessDenied))
	query.Set("error_description", "the user cancelled")
	query.Set("iss", p.issuer)
	if state := request.GetState(); state != "" {
		query.Set("state", state)
	}
	target.RawQuery = query.Encode()
	http.Redirect(w, r, target.String(), http.StatusSeeOther)
}

// sentence turns an error of the store into one a person reads.
func sentence(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:1]) + text[1:] + "."
}
