package filter

import (
	"errors"
	"fmt"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"
	"github.com/go-json-experiment/json"

	"iap/internal/audit"
)

// MaxLength bounds an expression, in bytes.
const MaxLength = 4096

// A Filter is an expression made ready for many records. It is not for concurrent use.
type Filter struct {
	program *vm.Program
	machine vm.VM
	fields  map[string]int
	env     map[string]any
}

// A SyntaxError is what an expression cannot mean, and where: the column in characters from 1.
type SyntaxError struct {
	Line, Column int
	Message      string
}

func (e *SyntaxError) Error() string {
	if e.Line > 1 {
		return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
	}
	return fmt.Sprintf("column %d: %s", e.Column, e.Message)
}

// New compiles an expression that is true or false of a record. An error is a
// *SyntaxError, or of its length.
func New(text string) (*Filter, error) {
	if len(text) > MaxLength {
		return nil, fmt.Errorf("the expression is longer than %d bytes", MaxLength)
	}
	f := &Filter{fields: fields(), env: map[string]any{}}
	seen(&audit.Event{}, f.fields, f.env)
	err := bounded(text)
	if err == nil {
		f.program, err = expr.Compile(text, expr.Env(f.env), expr.AsBool(), expr.MaxNodes(maxNodes))
	}
	if err != nil {
		var known *file.Error
		if errors.As(err, &known) {
			return nil, &SyntaxError{known.Line, known.Column + 1, known.Message}
		}
		message, _, _ := strings.Cut(err.Error(), "\n")
		return nil, &SyntaxError{1, 1, message}
	}
	return f, nil
}

// Match says whether the expression is true of a record, given as it stands in the log. An
// expression can fail on one record: it divides by a field that is zero.
func (f *Filter) Match(line []byte) (bool, error) {
	var e audit.Event
	if err := json.Unmarshal(line, &e); err != nil {
		return false, fmt.Errorf("read a record: %w", err)
	}
	seen(&e, f.fields, f.env)
	result, err := f.machine.Run(f.program, f.env)
	if err != nil {
		var known *file.Error
		if errors.As(err, &known) {
			return false, fmt.Errorf("record %d: column %d: %s", e.Seq, known.Column+1, known.Message)
		}
		return false, fmt.Errorf("record %d: %w", e.Seq, err)
	}
	yes, _ := result.(bool)
	return yes, nil
}
