// Package tune searches hyper-parameters so that a search can be repeated, killed and
// believed.
//
// A [Space] says what may be chosen, a [Study] proposes trials and takes their results, and a
// [Store] keeps them. A study is a sequence of pieces of work: piece n begins a trial or goes on
// with one that was paused, and it is a function of the study's seed, of n, and of the results of
// the pieces before n-Lag. So the same study has the same trials for any number of workers, as
// long as the results are functions of the trials.
package tune

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Values are the parameters of a trial by name: a float64, an int or a string each. Parameters
// whose condition is not met are absent.
type Values map[string]any

// A Type is what the values of a parameter are.
type Type int

// The types of parameters.
const (
	Float  Type = iota // float64 from Low to High
	Int                // int from Low to High
	Choice             // string, one of Choices
)

// A Param is one dimension of a space.
type Param struct {
	Name      string
	Type      Type
	Low, High float64 // bounds, both allowed
	Step      float64 // between neighbouring values, from Low on; 0: any (Float), 1 (Int)
	Log       bool    // the search is even in the logarithm; Low > 0 and no Step
	Choices   []string

	// Default is the value that is tried first and that the first trials are around; nil: none.
	Default any
	// When is the condition under which the parameter is used: the value of another one, which
	// stands before this one in the space, is one of a list, as texts.
	When   string
	Equals []string

	Line int // of the file that it was read from; 0: none
}

// A Space is what a study chooses from.
type Space struct {
	Params []*Param
	// Constraints are bounds that trials must keep, such as "hidden * layers <= 1024".
	Constraints []*Constraint
}

// Param returns the parameter of that name, or nil.
func (s *Space) Param(name string) *Param {
	for _, p := range s.Params {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Check returns an error that names the first parameter or constraint that makes no sense.
func (s *Space) Check() error {
	if len(s.Params) == 0 {
		return fmt.Errorf("the space has no parameter")
	}
	for i, p := range s.Params {
		if err := p.check(s.Params[:i]); err != nil {
			return fmt.Errorf("parameter %s: %w", p.Name, err)
		}
	}
	for _, c := range s.Constraints {
		if err := c.check(s); err != nil {
			return fmt.Errorf("constraint %q: %w", c.Text, err)
		}
	}
	return nil
}

func (p *Param) check(before []*Param) error {
	if p.Name == "" {
		return fmt.Errorf("it has no name")
	}
	if slices.ContainsFunc(before, func(q *Param) bool { return q.Name == p.Name }) {
		return fmt.Errorf("there are two of that name")
	}
	switch {
	case p.Type == Choice:
		if len(p.Choices) == 0 {
			return fmt.Errorf("expected at least one choice, got none")
		}
		for i, c := range p.Choices {
			if slices.Contains(p.Choices[:i], c) {
				return fmt.Errorf("the choice %q stands twice", c)
			}
		}
	case !(p.Low <= p.High) || math.IsInf(p.Low, 0) || math.IsInf(p.High, 0):
		return fmt.Errorf("the range %s to %s is empty: expected low <= high", number(p.Low), number(p.High))
	case p.Log && p.Low <= 0:
		return fmt.Errorf("a logarithmic range begins above 0, not at %s", number(p.Low))
	case p.Log && p.Step != 0 && !(p.Type == Int && p.Step == 1):
		return fmt.Errorf("a logarithmic range has no step")
	case !(p.Step >= 0) || math.IsInf(p.Step, 0):
		return fmt.Errorf("step %s: expected a number above 0", number(p.Step))
	case math.IsInf(p.High-p.Low, 0):
		return fmt.Errorf("the range %s to %s is too wide for numbers of 64 bits", number(p.Low), number(p.High))
	case p.Step > 0 && (p.High-p.Low)/p.Step > 1<<53:
		return fmt.Errorf("step %s: it is too small for the range %s to %s; leave it out", number(p.Step), number(p.Low), number(p.High))
	case p.Type == Int && (p.Low != math.Trunc(p.Low) || p.High != math.Trunc(p.High) || p.Step != math.Trunc(p.Step) || math.Abs(p.Low) > 1<<53 || math.Abs(p.High) > 1<<53):
		return fmt.Errorf("bounds and step of an int are whole numbers, not %s to %s", number(p.Low), number(p.High))
	}
	if p.When != "" {
		at := slices.IndexFunc(before, func(q *Param) bool { return q.Name == p.When })
		if at < 0 {
			return fmt.Errorf("its condition is on %s, which must be a parameter before it", p.When)
		}
		for _, text := range p.Equals {
			if v, err := before[at].Parse(text); err != nil {
				return fmt.Errorf("its condition: %w", err)
			} else if before[at].Text(v) != text {
				return fmt.Errorf("its condition: write %s as %s", text, before[at].Text(v))
			}
		}
	}
	if p.Default != nil {
		if _, err := p.take(p.Default); err != nil {
			return fmt.Errorf("default: %w", err)
		}
	}
	return nil
}

// Used reports whether the parameter is used beside these values of those before it.
func (p *Param) Used(v Values, s *Space) bool {
	if p.When == "" {
		return true
	}
	other, has := v[p.When]
	return has && slices.Contains(p.Equals, s.Param(p.When).Text(other))
}

// Count returns the number of values, 0 if they are a continuum.
func (p *Param) Count() int {
	switch {
	case p.Type == Choice:
		return len(p.Choices)
	case p.Type == Int || p.Step > 0:
		return int((p.High-p.Low)/p.step()+1e-9) + 1
	case p.Low == p.High:
		return 1
	}
	return 0
}

func (p *Param) step() float64 {
	if p.Type == Int {
		return max(1, p.Step)
	}
	return p.Step
}

// Ordered reports whether neighbouring values are alike.
func (p *Param) Ordered() bool { return p.Type != Choice }

// At returns the value at u of [0,1], with even shares for all values where they can be counted: of
// a choice the one whose share u is in, of numbers the nearest allowed one, or, of a logarithmic
// range, evenly in the logarithm.
func (p *Param) At(u float64) any {
	u = min(max(u, 0), 1)
	if p.Type == Choice {
		return p.Choices[min(int(u*float64(len(p.Choices))), len(p.Choices)-1)]
	}
	if n := p.Count(); n > 0 {
		if p.Log {
			lo, hi := math.Log(p.Low-.5), math.Log(p.High+.5)
			return p.number(min(max(math.Round(math.Exp(lo+u*(hi-lo))), p.Low), p.High))
		}
		return p.nth(int(min(u*float64(n), float64(n-1))))
	}
	if p.Log {
		lo, hi := math.Log(p.Low), math.Log(p.High)
		return min(max(math.Exp(lo+u*(hi-lo)), p.Low), p.High)
	}
	return min(max(p.Low+u*(p.High-p.Low), p.Low), p.High)
}

// nth returns value i of those that can be counted, from 0.
func (p *Param) nth(i int) any {
	if p.Type == Choice {
		return p.Choices[i]
	}
	x := p.Low + p.step()*float64(i)
	if p.Type == Float {
		x = round(x)
	}
	return p.number(min(max(x, p.Low), p.High))
}

// round removes the error of a sum of steps: 0.15 instead of 0.15000000000000002.
func round(x float64) float64 {
	x, _ = strconv.ParseFloat(strconv.FormatFloat(x, 'g', 12, 64), 64) // of what was just written
	return x
}

func (p *Param) number(x float64) any {
	if p.Type == Int {
		return int(math.Round(x))
	}
	return x
}

// Unit is the inverse of At: the middle of a value's share of [0,1].
func (p *Param) Unit(v any) float64 {
	if p.Type == Choice {
		return (float64(slices.Index(p.Choices, v.(string))) + .5) / float64(len(p.Choices))
	}
	x := asFloat(v)
	if n := p.Count(); n > 0 {
		if p.Log {
			lo, hi := math.Log(p.Low-.5), math.Log(p.High+.5)
			return (math.Log(x) - lo) / (hi - lo)
		}
		return (math.Round((x-p.Low)/p.step()) + .5) / float64(n)
	}
	if p.Log {
		return math.Log(x/p.Low) / math.Log(p.High/p.Low)
	}
	return (x - p.Low) / (p.High - p.Low)
}

func asFloat(v any) float64 {
	if n, ok := v.(int); ok {
		return float64(n)
	}
	return v.(float64)
}

// Parse reads a value as it is typed, and checks that the parameter may have it.
func (p *Param) Parse(text string) (any, error) {
	if p.Type == Choice {
		return p.take(text)
	}
	x, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, fmt.Errorf("%s: expected a number, got %q", p.Name, text)
	}
	return p.take(x)
}

// take checks a value of any number type or a text, and returns it as Values have it.
func (p *Param) take(v any) (any, error) {
	if p.Type == Choice {
		text := fmt.Sprint(v)
		if !slices.Contains(p.Choices, text) {
			return nil, fmt.Errorf("%s: expected one of %s, got %q", p.Name, strings.Join(p.Choices, ", "), text)
		}
		return text, nil
	}
	var x float64
	switch v := v.(type) {
	case int:
		x = float64(v)
	case float64:
		x = v
	default:
		return nil, fmt.Errorf("%s: expected a number, got %v", p.Name, v)
	}
	if !(p.Low <= x && x <= p.High) {
		return nil, fmt.Errorf("%s: expected a number from %s to %s, got %s", p.Name, number(p.Low), number(p.High), number(x))
	}
	if p.Type == Int && x != math.Trunc(x) {
		return nil, fmt.Errorf("%s: expected a whole number, got %s", p.Name, number(x))
	}
	return p.number(x), nil
}

// Text writes a value so that Parse reads it.
func (p *Param) Text(v any) string {
	if p.Type == Choice {
		return v.(string)
	}
	return number(asFloat(v))
}

func number(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

// Take checks values from outside, of which those of used parameters that are missing are the
// defaults, and returns them as a trial has them.
func (s *Space) Take(given Values) (Values, error) {
	v := Values{}
	for _, p := range s.Params {
		got, has := given[p.Name]
		switch {
		case !p.Used(v, s):
			if has {
				return nil, fmt.Errorf("%s: it is used only where %s is %s", p.Name, p.When, strings.Join(p.Equals, " or "))
			}
			continue
		case !has && p.Default == nil:
			return nil, fmt.Errorf("%s: it has no value and no default", p.Name)
		case !has:
			got = p.Default
		}
		one, err := p.take(got)
		if err != nil {
			return nil, err
		}
		v[p.Name] = one
	}
	for name := range given {
		if s.Param(name) == nil {
			return nil, fmt.Errorf("there is no parameter %s", name)
		}
	}
	return v, nil
}

// Defaults returns the values of the defaults, nil if a used parameter has none.
func (s *Space) Defaults() Values {
	v, err := s.Take(Values{})
	if err != nil {
		return nil
	}
	return v
}

// Build makes values parameter by parameter, in order; of asks for that of one that is used.
func (s *Space) Build(of func(p *Param, so Values) any) Values {
	v := Values{}
	for _, p := range s.Params {
		if p.Used(v, s) {
			v[p.Name] = of(p, v)
		}
	}
	return v
}

// Allows reports whether values keep the constraints on parameters.
func (s *Space) Allows(v Values) bool {
	for _, c := range s.Constraints {
		if c.measured == "" && c.Excess(v, nil) > 0 {
			return false
		}
	}
	return true
}
