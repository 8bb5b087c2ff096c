package rego

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"iap/policy"
)

//go:embed iap.rego
var builtinPolicy string

//go:embed decision.rego
var entryPoint string

//go:embed explain.rego
var explanationRules string

// Paths in the policy's namespace.
const (
	packageIAP      = "data.iap"
	packageBuiltin  = "data.iap.builtin"
	ruleDecision    = "data.iap.decision"
	ruleExplanation = "data.iap.builtin.explanation"
	ruleAdminDeny   = "data.iap.admin_deny"
	documentGrants  = "data.grants"
	packageSystem   = "data.system"
	grantsKey       = "grants"
	cachedDecisions = 16384 // about 8 MB; some hundred principals with all their models
)

// loaded is one policy, ready to answer. It is immutable but for its cache.
type loaded struct {
	grants   *policy.Grants
	byName   map[string]policy.Grant
	revision string
	source   Source
	decision rego.PreparedEvalQuery
	explain  rego.PreparedEvalQuery
	// adminDeny is what modules take from administrators; nil: none does.
	adminDeny *rego.PreparedEvalQuery
	replaced  bool           // a module defines the decision itself
	ages      bool           // some grant has a max_auth_age
	cache     *decisionCache // nil: a module reads the clock
}

// compiled is what modules and grants compile to, for deciding and for testing.
type compiled struct {
	grants     *policy.Grants
	modules    map[string]*ast.Module
	compiler   *ast.Compiler
	store      storage.Store
	readsClock bool
	replaced   bool
	adminDeny  bool
}

// assemble parses grants and modules and readies a compiler for them. A mistake
// anywhere spoils the whole.
func assemble(src source) (*compiled, error) {
	grants, err := policy.ParseGrants(src.grantsFile, src.grants, src.issuers)
	if err != nil {
		return nil, err
	}
	capabilities, refused := restricted()
	c := &compiled{grants: grants, modules: map[string]*ast.Module{}}
	for _, m := range src.modules {
		if err := c.add(m, capabilities, refused); err != nil {
			return nil, err
		}
	}
	own := map[string]string{"builtin:iap.rego": builtinPolicy, "builtin:explain.rego": explanationRules}
	if !c.replaced {
		own["builtin:decision.rego"] = entryPoint
	}
	for name, text := range own {
		if c.modules[name], err = parseModule(name, text, capabilities); err != nil {
			return nil, err
		}
	}
	c.store = inmem.NewFromObjectWithOpts(map[string]any{grantsKey: grantsData(grants)}, inmem.OptReturnASTValuesOnRead(true))
	c.compiler = ast.NewCompiler().WithCapabilities(capabilities).WithStrict(true)
	return c, nil
}

// add parses one of the operator's modules and sees to it that it stays in its place.
func (c *compiled) add(m moduleSource, capabilities *ast.Capabilities, refused map[string]bool) error {
	parsed, err := parseModule(m.name, string(m.text), capabilities)
	if err != nil {
		return err
	}
	readsClock, err := audit(parsed, refused)
	if err != nil {
		return err
	}
	c.readsClock = c.readsClock || readsClock
	for _, rule := range parsed.Rules {
		path := rule.Ref().GroundPrefix()
		switch {
		case within(path, packageBuiltin), within(path, documentGrants), within(path, packageSystem):
			return fmt.Errorf("%s: %s is not for modules to define", rule.Location, path)
		case within(path, ruleDecision):
			c.replaced = true
		case within(path, ruleAdminDeny):
			if rule.Head.RuleKind() != ast.MultiValue || len(path) != len(ast.MustParseRef(ruleAdminDeny)) {
				return fmt.Errorf("%s: rules that take verbs from administrators are written: admin_deny contains \"message\" if …", rule.Location)
			}
			c.adminDeny = true
		}
	}
	c.modules[m.name] = parsed
	return nil
}

// within reports whether path is prefix or lies below it.
func within(path ast.Ref, prefix string) bool { return path.HasPrefix(ast.MustParseRef(prefix)) }

func parseModule(name, text string, capabilities *ast.Capabilities) (*ast.Module, error) {
	m, err := ast.ParseModuleWithOpts(name, text, ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: capabilities})
	if err != nil {
		return nil, fmt.Errorf("parse policy: %w", err)
	}
	if m == nil {
		return nil, fmt.Errorf("parse policy: %s is empty", name)
	}
	return m, nil
}

// load compiles a source and prepares its queries.
func load(ctx context.Context, src source) (*loaded, error) {
	c, err := assemble(src)
	if err != nil {
		return nil, err
	}
	if c.compiler.Compile(c.modules); c.compiler.Failed() {
		return nil, fmt.Errorf("compile policy: %w", c.compiler.Errors)
	}
	l := &loaded{grants: c.grants, revision: src.revision(), source: src.shown(), replaced: c.replaced, byName: map[string]policy.Grant{}}
	l.source.Grants = c.grants
	for _, g := range c.grants.List {
		l.byName[g.Name] = g
		l.ages = l.ages || g.Require.MaxAuthAge > 0
	}
	if !c.readsClock {
		l.cache = newDecisionCache(cachedDecisions)
	}
	if l.decision, err = c.prepare(ctx, ruleDecision); err != nil {
		return nil, err
	}
	if l.explain, err = c.prepare(ctx, ruleExplanation); err != nil || !c.adminDeny {
		return l, err
	}
	deny, err := c.prepare(ctx, ruleAdminDeny)
	l.adminDeny = &deny
	return l, err
}

func (c *compiled) prepare(ctx context.Context, query string) (rego.PreparedEvalQuery, error) {
	q, err := rego.New(
		rego.Query(query),
		rego.Compiler(c.compiler),
		rego.Store(c.store),
		rego.StrictBuiltinErrors(true),
		rego.SetRegoVersion(ast.RegoV1),
	).PrepareForEval(ctx)
	if err != nil {
		return q, fmt.Errorf("prepare policy: %w", err)
	}
	return q, nil
}
