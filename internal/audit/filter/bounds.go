package filter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
)

const maxNodes = 500 // of an expression's tree: more than a person types

// functions are the library's that may be called: each looks at its arguments once and
// makes nothing longer than they are.
func functions() []string {
	return []string{"lower", "upper", "trim", "len", "date", "duration", "now", "int", "float", "string", "abs", "any", "all", "none", "one"}
}

// overList are those that ask each member of a list.
func overList() []string { return []string{"any", "all", "none", "one"} }

// bounds refuses what could run long or take memory. What is left asks each of its
// nodes once, and those within any(…) once for each member of a list that stands
// in the expression: such lists do not nest, and none is made of a range or a record.
type bounds struct {
	source file.Source
	wrong  *file.Error // the first
}

// bounded checks the tree as it was typed.
func bounded(text string) error {
	tree, err := parser.Parse(text)
	if err != nil {
		return err
	}
	b := bounds{source: tree.Source}
	ast.Walk(&tree.Node, &b)
	if b.wrong != nil {
		return b.wrong
	}
	return nil
}

// Visit looks at one node.
func (b *bounds) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.BinaryNode:
		if n.Operator == ".." {
			b.refuse(n, "ranges are not part of this language: compare with >= and <=")
		}
		if _, text := n.Right.(*ast.StringNode); n.Operator == "matches" && !text {
			b.refuse(n, "behind matches stands a text in quotes")
		}
	case *ast.BuiltinNode:
		b.function(n)
	case *ast.CallNode:
		if name, ok := n.Callee.(*ast.IdentifierNode); ok {
			b.refuse(n, "there is no function %s; there are %s", name.Value, strings.Join(functions(), ", "))
		}
	case *ast.VariableDeclaratorNode, *ast.SequenceNode, *ast.MapNode:
		b.refuse(n, "this is not part of this language")
	}
}

func (b *bounds) function(n *ast.BuiltinNode) {
	if !slices.Contains(functions(), n.Name) {
		b.refuse(n, "there is no function %s; there are %s", n.Name, strings.Join(functions(), ", "))
		return
	}
	if !slices.Contains(overList(), n.Name) {
		return
	}
	if _, list := n.Arguments[0].(*ast.ArrayNode); !list {
		b.refuse(n, "%s wants a list that stands there, such as %s([\"chat\", \"embed\"], # == action)", n.Name, n.Name)
	}
	for i := range n.Arguments {
		inner := ast.Find(n.Arguments[i], func(node ast.Node) bool {
			f, ok := node.(*ast.BuiltinNode)
			return ok && slices.Contains(overList(), f.Name)
		})
		if inner != nil {
			b.refuse(n, "%s within %s is not part of this language", inner.(*ast.BuiltinNode).Name, n.Name)
		}
	}
}

func (b *bounds) refuse(n ast.Node, format string, words ...any) {
	if b.wrong == nil {
		b.wrong = (&file.Error{Location: n.Location(), Message: fmt.Sprintf(format, words...)}).Bind(b.source)
	}
}
