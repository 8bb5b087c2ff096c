package rego

import (
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"

	"iap/policy"
)

// question is an input in the form in which it is hashed and evaluated: what
// the policy reads and nothing else. Two inputs with equal questions get equal
// answers, for as long as the answer says.
type question struct {
	policy.Input
	mfaHeld, mfaAsserted bool
	authTime             int64 // nanoseconds since 1970; 0: not known
}

func newQuestion(in policy.Input) question {
	q := question{Input: in}
	q.mfaHeld, q.mfaAsserted = in.Principal.SecondFactor()
	if at, known := in.Principal.LoggedIn(in.Now); known {
		q.authTime = at.UnixNano()
	}
	return q
}

// document builds the input document that doc.go describes.
func (q question) document() ast.Value {
	p := q.Principal
	principal := [][2]*ast.Term{
		field("id", text(p.ID())),
		field("issuer", text(p.Issuer)),
		field("subject", text(p.Subject)),
		field("groups", texts(p.Groups)),
		field("claims", claims(p.Claims)),
		field("mfa", ast.ObjectTerm(
			field("held", flag(q.mfaHeld)),
			field("asserted", flag(q.mfaAsserted)),
			field("source", text(p.MFASource)),
		)),
		field("acr", text(p.ACR)),
		field("binding", text(p.Binding)),
		field("workload", flag(p.Workload)),
	}
	if q.authTime != 0 {
		principal = append(principal, field("auth_time", number(q.authTime)))
	}
	return ast.NewObject(
		field("principal", ast.ObjectTerm(principal...)),
		field("resource", ast.ObjectTerm(
			field("name", text(q.Resource.Name)),
			field("kind", text(q.Resource.Kind)),
			field("labels", labels(q.Resource.Labels)),
		)),
		field("action", text(q.Action)),
		field("model", text(q.Model)),
		field("egress", flag(q.Egress)),
		field("media", texts(q.Media)),
		field("via", text(q.Via)),
	)
}

func field(name string, value *ast.Term) [2]*ast.Term {
	return [2]*ast.Term{ast.InternedTerm(name), value}
}

func text(s string) *ast.Term  { return ast.StringTerm(s) }
func flag(b bool) *ast.Term    { return ast.InternedTerm(b) }
func number(n int64) *ast.Term { return ast.NewTerm(ast.Number(strconv.FormatInt(n, 10))) }

func texts(list []string) *ast.Term {
	terms := make([]*ast.Term, len(list))
	for i, s := range list {
		terms[i] = text(s)
	}
	return ast.ArrayTerm(terms...)
}

func claims(c map[string][]string) *ast.Term {
	fields := make([][2]*ast.Term, 0, len(c))
	for name, values := range c {
		fields = append(fields, [2]*ast.Term{text(name), texts(values)})
	}
	return ast.ObjectTerm(fields...)
}

func labels(l map[string]string) *ast.Term {
	fields := make([][2]*ast.Term, 0, len(l))
	for key, value := range l {
		fields = append(fields, [2]*ast.Term{text(key), text(value)})
	}
	return ast.ObjectTerm(fields...)
}
