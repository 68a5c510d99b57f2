// Package settings defines what a setting is. The tags of a configuration
// struct's fields describe its settings, its Defaults hold the initial values,
// and validation, flags, help, shell completion and documentation are derived
// from both.
//
//	Dropout float64 `json:"dropout" range:"0..0.99" group:"Model" help:"dropout of the output"`
//	Pool    string  `json:"pool" oneof:"max,mean,last (the last step alone)" group:"Model" help:"how steps become one vector"`
//
// A field is a setting if it has a json name and a type with a text form.
//
//	range  numbers allowed: see [Range]; of a list, of each item
//	oneof  words allowed, with commas between them, each with a note in brackets
//	       if need be; a note without a word says what the empty value means. Of a
//	       list, words that each item may be. @name is all words of a list in [Lists]
//	help   what it is, without what range and oneof say; {@name} in it is all words of a
//	       list in [Lists], with commas between them
//	group  the heading that it stands under
//	items  "whole": each text given is one item, commas and all; in it \n and \t are a line's end and a tab
//	value  what its flag's value is called, such as file
//	was    names that it had in older versions, with commas between them; a name may be followed
//	       by values that were renamed: "lowercase true=lower false=keep"
//	before what it was, as JSON, in older versions that had no such setting
package settings

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Lists are words that are known elsewhere already, for the tags that name them.
// Packages add theirs as they begin.
var Lists = map[string][]string{}

// Setting is one field of a struct.
type Setting struct {
	Name    string // as in JSON and recipe files: words joined by underscores
	Help    string
	Group   string
	Choices []Choice // nil: any
	Range   Range    // nil: any

	word   string // the tag value
	whole  bool   // commas do not split a text into items
	was    string // the tag
	before string
	field  reflect.Value
}

// Choice is one of the words that a setting accepts.
type Choice struct {
	Word string // "": the setting may be empty
	Note string // what it does; may be empty
}

// List returns the settings of the struct that ptr points to, those of embedded
// structs included, in order. It panics on a tag that cannot be parsed.
func List(ptr any) []*Setting {
	return list(nil, reflect.ValueOf(ptr).Elem())
}

func list(to []*Setting, v reflect.Value) []*Setting {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous && f.Type.Kind() == reflect.Struct {
			to = list(to, v.Field(i))
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" || !f.IsExported() || !assignable(f.Type) {
			continue
		}
		s := &Setting{Name: name, Help: expand(f.Tag.Get("help")), Group: f.Tag.Get("group"), word: f.Tag.Get("value"), was: f.Tag.Get("was"), before: f.Tag.Get("before"), whole: f.Tag.Get("items") == "whole", field: v.Field(i)}
		if tag, ok := f.Tag.Lookup("range"); ok {
			var err error
			if s.Range, err = parseRange(tag, itemType(f.Type)); err != nil {
				panic(fmt.Sprintf("settings: %s of %s: %v", f.Name, v.Type(), err))
			}
		}
		if tag, ok := f.Tag.Lookup("oneof"); ok {
			s.Choices = parseChoices(tag)
		}
		to = append(to, s)
	}
	return to
}

// Named returns the setting with that name, or nil.
func Named(list []*Setting, name string) *Setting {
	for _, s := range list {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Flag returns the name in the form of a flag.
func (s *Setting) Flag() string { return strings.ReplaceAll(s.Name, "_", "-") }

// Check returns a one-line error that names the first setting of the struct
// that ptr points to whose value is out of its range or not among its choices.
// Constraints between settings belong in the struct's own Validate.
func Check(ptr any) error {
	for _, s := range List(ptr) {
		if err := s.Check(); err != nil {
			return err
		}
	}
	return nil
}

// Check is [Check] for one setting; it returns the same errors.
func (s *Setting) Check() error {
	if s.field.Kind() != reflect.Slice || isText(s.field.Type()) {
		return s.check(s.field)
	}
	for i := range s.field.Len() {
		if err := s.check(s.field.Index(i)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Setting) check(v reflect.Value) error {
	if s.Choices != nil {
		words := s.Words()
		if text := format(v); !slices.Contains(words, text) && !(text == "" && s.mayBeEmpty()) {
			return fmt.Errorf("%s: want %s, got %q%s", s.Name, strings.Join(words, ", "), text, DidYouMean(text, words, "", ""))
		}
	}
	if s.Range != nil && !s.Range.contains(v) {
		return fmt.Errorf("%s: want %s, got %v", s.Name, s.Range, v.Interface())
	}
	return nil
}

// Words returns the choices, without the empty one.
func (s *Setting) Words() []string {
	var words []string
	for _, c := range s.Choices {
		if c.Word != "" {
			words = append(words, c.Word)
		}
	}
	return words
}

func (s *Setting) mayBeEmpty() bool {
	return slices.ContainsFunc(s.Choices, func(c Choice) bool { return c.Word == "" })
}

// Describe returns the help text with the choices and the range.
func (s *Setting) Describe() string {
	var b strings.Builder
	b.WriteString(s.Help)
	empty := ""
	var parts []string
	for _, c := range s.Choices {
		switch {
		case c.Word == "":
			empty = fmt.Sprintf(" (empty: %s)", c.Note)
		case c.Note != "":
			parts = append(parts, fmt.Sprintf("%s (%s)", c.Word, c.Note))
		default:
			parts = append(parts, c.Word)
		}
	}
	if n := len(parts); n > 0 {
		b.WriteString(": ")
		b.WriteString(strings.Join(parts[:n-1], ", "))
		if n > 1 {
			b.WriteString(" or ")
		}
		b.WriteString(parts[n-1])
	}
	b.WriteString(empty)
	if s.Range != nil {
		fmt.Fprintf(&b, " [%s]", s.Range.short())
	}
	return b.String()
}

// Kind returns the name of the value's kind.
func (s *Setting) Kind() string {
	switch t := s.field.Type(); {
	case s.word != "":
		return s.word
	case s.Choices != nil && s.IsList():
		return "words"
	case s.Choices != nil:
		return "word"
	case t == durationType:
		return "duration"
	case isText(t):
		return "string"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String:
		return "names"
	case t.Kind() == reflect.Slice:
		return "numbers"
	case t.Kind() == reflect.Float64, t.Kind() == reflect.Float32:
		return "number"
	case t.Kind() == reflect.Bool, t.Kind() == reflect.String:
		return t.Kind().String()
	}
	return "n"
}

// IsBool reports whether the value is true or false.
func (s *Setting) IsBool() bool { return s.field.Kind() == reflect.Bool }

// IsList reports whether the value is a list.
func (s *Setting) IsList() bool { return s.field.Kind() == reflect.Slice && !isText(s.field.Type()) }

// IsZero reports whether the value is its type's zero.
func (s *Setting) IsZero() bool { return s.field.IsZero() }

// parseChoices reads "a,b (a note),c".
func parseChoices(tag string) []Choice {
	var list []Choice
	depth, from := 0, 0
	for i := 0; i <= len(tag); i++ {
		switch {
		case i == len(tag) || tag[i] == ',' && depth == 0:
			word, note, _ := strings.Cut(tag[from:i], "(")
			words := []string{strings.TrimSpace(word)}
			if name, ok := strings.CutPrefix(words[0], "@"); ok {
				words = Lists[name]
			}
			for _, word := range words {
				list = append(list, Choice{word, strings.TrimSuffix(note, ")")})
			}
			from = i + 1
		case tag[i] == '(':
			depth++
		case tag[i] == ')':
			depth--
		}
	}
	return list
}

// expand replaces each {@name} of a help text by the words of a list. It panics if
// there is no such list.
func expand(help string) string {
	for {
		before, rest, ok := strings.Cut(help, "{@")
		if !ok {
			return help
		}
		name, after, _ := strings.Cut(rest, "}")
		if Lists[name] == nil {
			panic(fmt.Sprintf("settings: no list %q for the help %q", name, help))
		}
		help = before + strings.Join(Lists[name], ", ") + after
	}
}

func itemType(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Slice && !isText(t) {
		return t.Elem()
	}
	return t
}

var durationType = reflect.TypeFor[time.Duration]()
