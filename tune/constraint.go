package tune

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A Constraint bounds an expression: numbers, numeric parameters and measures of a trial, such as
// "latency", with + - * / and brackets, on both sides of <= or >=.
type Constraint struct {
	Text        string
	Line        int      // of the file that it was read from; 0: none
	left, right ast.Expr // left <= right
	names       []string
	measured    string // the one name that is no parameter, set by Space.Check
}

// Measured returns the measure that the constraint is on, such as "latency", or "" if it is on
// parameters alone, so that trials which break it are never proposed.
func (c *Constraint) Measured() string { return c.measured }

// ParseConstraint reads a constraint, such as "hidden * layers <= 1024".
func ParseConstraint(text string) (*Constraint, error) {
	e, err := parser.ParseExpr(text)
	if err != nil {
		return nil, fmt.Errorf("constraint %q: expected two expressions with <= between them, such as \"hidden * layers <= 1024\"", text)
	}
	b, ok := e.(*ast.BinaryExpr)
	if !ok || b.Op != token.LEQ && b.Op != token.GEQ {
		return nil, fmt.Errorf("constraint %q: expected <= or >= between two expressions", text)
	}
	c := &Constraint{Text: strings.TrimSpace(text), left: b.X, right: b.Y}
	if b.Op == token.GEQ {
		c.left, c.right = c.right, c.left
	}
	for _, side := range []ast.Expr{c.left, c.right} {
		if err := c.scan(side); err != nil {
			return nil, fmt.Errorf("constraint %q: %w", text, err)
		}
	}
	return c, nil
}

func (c *Constraint) scan(e ast.Expr) error {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return c.scan(e.X)
	case *ast.UnaryExpr:
		if e.Op == token.SUB {
			return c.scan(e.X)
		}
	case *ast.BinaryExpr:
		if slices.Contains([]token.Token{token.ADD, token.SUB, token.MUL, token.QUO}, e.Op) {
			return cmp.Or(c.scan(e.X), c.scan(e.Y))
		}
	case *ast.BasicLit:
		if _, err := strconv.ParseFloat(e.Value, 64); err == nil {
			return nil
		}
	case *ast.Ident:
		if !slices.Contains(c.names, e.Name) {
			c.names = append(c.names, e.Name)
		}
		return nil
	}
	return fmt.Errorf("expected numbers, names, + - * / and brackets")
}

func (c *Constraint) check(s *Space) error {
	c.measured = ""
	for _, name := range c.names {
		switch p := s.Param(name); {
		case p != nil && p.Type == Choice:
			return fmt.Errorf("%s is not a number", name)
		case p == nil && c.measured != "":
			return fmt.Errorf("neither %s nor %s is a parameter; one measure is allowed", c.measured, name)
		case p == nil:
			c.measured = name
		}
	}
	return nil
}

// Excess returns by how much the constraint is broken, 0 or less if it is kept. A constraint with a
// parameter that is not used, or with a measure that there is none of yet, is kept.
func (c *Constraint) Excess(v Values, measures map[string]float64) float64 {
	x := c.value(c.left, v, measures) - c.value(c.right, v, measures)
	if math.IsNaN(x) {
		return 0
	}
	return x
}

func (c *Constraint) value(e ast.Expr, v Values, measures map[string]float64) float64 {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return c.value(e.X, v, measures)
	case *ast.UnaryExpr:
		return -c.value(e.X, v, measures)
	case *ast.BinaryExpr:
		x, y := c.value(e.X, v, measures), c.value(e.Y, v, measures)
		switch e.Op {
		case token.ADD:
			return x + y
		case token.SUB:
			return x - y
		case token.MUL:
			return x * y
		}
		return x / y
	case *ast.BasicLit:
		x, _ := strconv.ParseFloat(e.Value, 64) // scan has tried it
		return x
	case *ast.Ident:
		if one, has := v[e.Name]; has {
			return asFloat(one)
		}
		if x, has := measures[e.Name]; has {
			return x
		}
	}
	return math.NaN()
}
