package tune

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/internal/yaml"
)

// ParseSpace reads a space as YAML, path standing for it in messages. Each entry is a parameter:
//
//	lr: {low: 1e-4, high: 1e-2, log: true, default: 1e-3}
//	hidden: {low: 32, high: 256, step: 32, type: int}
//	pool: {choices: [max, mean]}
//	momentum: {low: 0, high: 0.99, when: optimizer, is: [sgd]}
//	constraints: ["hidden * layers <= 1024", "latency <= 2"]
//
// type is float if it is not given, and choice where there are choices.
func ParseSpace(path, text string) (*Space, error) {
	entries, err := yaml.Mapping(path, text)
	if err != nil {
		return nil, err
	}
	s := &Space{}
	lines := map[string]int{}
	for _, e := range entries {
		name := yaml.Text(e.Key)
		fail := func(n ast.Node, format string, args ...any) error {
			return fmt.Errorf("%s:%d: %s: %s", path, n.GetToken().Position.Line, name, fmt.Sprintf(format, args...))
		}
		if _, again := lines[name]; again {
			return nil, fail(e.Key, "there are two entries of that name")
		}
		lines[name] = e.Key.GetToken().Position.Line
		if name == "constraints" {
			texts, ok := list(e.Value)
			if !ok {
				return nil, fail(e.Value, "expected a list of texts, such as [\"hidden * layers <= 1024\"]")
			}
			for _, one := range texts {
				c, err := ParseConstraint(one)
				if err != nil {
					return nil, fmt.Errorf("%s:%d: %w", path, lines[name], err)
				}
				c.Line = lines[name]
				s.Constraints = append(s.Constraints, c)
			}
			continue
		}
		fields, ok := e.Value.(*ast.MappingNode)
		if !ok {
			return nil, fail(e.Value, "expected a range or choices, such as {low: 1, high: 8, type: int} or {choices: [max, mean]}")
		}
		p := &Param{Name: name, Line: lines[name]}
		var low, high, choices bool
		var byDefault *string
		for _, f := range fields.Values {
			key := yaml.Text(f.Key)
			value := ""
			if yaml.IsScalar(f.Value) {
				value = yaml.Text(f.Value)
			}
			num := func(to *float64) error {
				x, err := strconv.ParseFloat(value, 64)
				if err != nil {
					return fail(f.Value, "%s: expected a number, got %q", key, value)
				}
				*to = x
				return nil
			}
			var err error
			switch key {
			case "low":
				low, err = true, num(&p.Low)
			case "high":
				high, err = true, num(&p.High)
			case "step":
				err = num(&p.Step)
			case "log":
				if p.Log, err = strconv.ParseBool(value); err != nil {
					err = fail(f.Value, "log: expected true or false, got %q", value)
				}
			case "type":
				switch value {
				case "float":
				case "int":
					p.Type = Int
				case "choice":
					p.Type = Choice
				default:
					err = fail(f.Value, "type: expected float, int or choice, got %q", value)
				}
			case "choices":
				choices = true
				if p.Choices, ok = list(f.Value); !ok {
					err = fail(f.Value, "choices: expected a list, such as [max, mean]")
				}
				p.Type = Choice
			case "default":
				if byDefault = &value; !yaml.IsScalar(f.Value) {
					err = fail(f.Value, "default: expected one value")
				}
			case "when":
				if p.When = value; value == "" {
					err = fail(f.Value, "when: expected the name of a parameter")
				}
			case "is":
				if p.Equals, ok = list(f.Value); !ok {
					err = fail(f.Value, "is: expected a list of values of %s", p.When)
				}
			default:
				all := []string{"low", "high", "step", "log", "type", "choices", "default", "when", "is"}
				err = fail(f.Key, "unknown field %q%s", key, settings.DidYouMean(key, all, "", "it may have "))
			}
			if err != nil {
				return nil, err
			}
		}
		switch {
		case choices && (low || high):
			return nil, fail(e.Key, "expected either low and high or choices, not both")
		case !choices && (!low || !high):
			return nil, fail(e.Key, "expected low and high, or choices")
		case (p.When == "") != (len(p.Equals) == 0):
			return nil, fail(e.Key, "when and is go together: the name of a parameter, and a list of its values")
		}
		if byDefault != nil {
			if p.Default, err = p.Parse(*byDefault); err != nil {
				return nil, fail(e.Key, "default: %v", err)
			}
		}
		if err := p.check(s.Params); err != nil {
			return nil, fail(e.Key, "%v", err)
		}
		s.Params = append(s.Params, p)
	}
	for _, c := range s.Constraints {
		if err := c.check(s); err != nil {
			return nil, fmt.Errorf("%s:%d: constraint %q: %w", path, lines["constraints"], c.Text, err)
		}
	}
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// list returns the texts of a list of scalars, or of one.
func list(n ast.Node) ([]string, bool) {
	if yaml.IsScalar(n) {
		return []string{yaml.Text(n)}, true
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok || len(seq.Values) == 0 {
		return nil, false
	}
	var texts []string
	for _, one := range seq.Values {
		if !yaml.IsScalar(one) {
			return nil, false
		}
		texts = append(texts, yaml.Text(one))
	}
	return texts, true
}

// String writes the space so that ParseSpace reads it.
func (s *Space) String() string {
	var b strings.Builder
	quoted := func(texts []string) string {
		list := make([]string, len(texts))
		for i, t := range texts {
			list[i] = strconv.Quote(t)
		}
		return "[" + strings.Join(list, ", ") + "]"
	}
	for _, p := range s.Params {
		fmt.Fprintf(&b, "%s: {", yaml.Quote(p.Name))
		if p.Type == Choice {
			fmt.Fprintf(&b, "choices: %s", quoted(p.Choices))
		} else {
			fmt.Fprintf(&b, "low: %s, high: %s", number(p.Low), number(p.High))
			if p.Step != 0 {
				fmt.Fprintf(&b, ", step: %s", number(p.Step))
			}
			if p.Log {
				b.WriteString(", log: true")
			}
			if p.Type == Int {
				b.WriteString(", type: int")
			}
		}
		if p.Default != nil {
			if v, err := p.take(p.Default); err == nil {
				text := p.Text(v)
				if p.Type == Choice {
					text = strconv.Quote(text)
				}
				fmt.Fprintf(&b, ", default: %s", text)
			}
		}
		if p.When != "" {
			fmt.Fprintf(&b, ", when: %s, is: %s", yaml.Quote(p.When), quoted(p.Equals))
		}
		b.WriteString("}\n")
	}
	if len(s.Constraints) > 0 {
		var texts []string
		for _, c := range s.Constraints {
			texts = append(texts, c.Text)
		}
		fmt.Fprintf(&b, "constraints: %s\n", quoted(texts))
	}
	return b.String()
}
