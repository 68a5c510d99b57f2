package cli

import (
	"encoding"
	"encoding/csv"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel/report"
)

// settings are the fields of one or more structs by name: what flags, recipe
// files and --set all write. A field takes part if it has a json name; its
// `help` tag is the flag's text, its `group` tag the heading it stands under
// in --help, and its value when added the default. A field without help is
// left to recipe files.
type settings struct {
	list   []*setting
	byName map[string]*setting
}

// setting is one field. It is the pflag.Value of its flag, which keeps the
// text until resolve has applied what a flag overrides.
type setting struct {
	name   string // as a flag: words joined by dashes
	help   string
	group  string
	target reflect.Value
	given  []string // the flag's texts, in order
}

// add takes in the fields of the struct that ptr points to.
func (s *settings) add(ptr any, group string) {
	if s.byName == nil {
		s.byName = map[string]*setting{}
	}
	s.addFields(reflect.ValueOf(ptr).Elem(), group)
}

func (s *settings) addFields(v reflect.Value, group string) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous && f.Type.Kind() == reflect.Struct {
			s.addFields(v.Field(i), group)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" || !f.IsExported() || !assignable(f.Type) {
			continue
		}
		one := &setting{name: strings.ReplaceAll(name, "_", "-"), help: f.Tag.Get("help"), group: group, target: v.Field(i)}
		if g := f.Tag.Get("group"); g != "" {
			one.group = g
		}
		s.list = append(s.list, one)
		s.byName[fold(one.name)] = one
	}
}

// remove leaves a field to the program.
func (s *settings) remove(name string) {
	s.list = slices.DeleteFunc(s.list, func(one *setting) bool { return one.name == name })
	delete(s.byName, fold(name))
}

// given says whether any flag was.
func (s *settings) given() bool {
	return slices.ContainsFunc(s.list, func(one *setting) bool { return one.given != nil })
}

// bind makes a flag of every setting that has a help text, but not of those
// that are flags of every command.
func (s *settings) bind(flags *pflag.FlagSet, inherited ...string) {
	for _, one := range s.list {
		if one.help == "" || slices.Contains(inherited, one.name) {
			continue
		}
		f := flags.VarPF(one, one.name, "", one.help)
		if one.target.Kind() == reflect.Bool {
			f.NoOptDefVal = "true"
		}
		if one.target.IsZero() {
			f.DefValue = "" // the help text says what nothing means
		}
		f.Annotations = map[string][]string{groupAnnotation: {one.group}}
	}
}

// resolve writes the settings in rising order of rank over the defaults: the
// recipe file (if named), the --set pairs, then the flags given.
func (s *settings) resolve(recipe string, pairs []string) error {
	if recipe != "" {
		if err := s.readRecipe(recipe); err != nil {
			return err
		}
	}
	for _, pair := range pairs {
		name, text, ok := strings.Cut(pair, "=")
		if !ok {
			return misusef("--set %q: want name=value", pair)
		}
		one, err := s.lookup(strings.TrimSpace(name))
		if err != nil {
			return misusef("--set: %v", err)
		}
		if err := assign(one.target, []string{text}); err != nil {
			return misusef("--set %s: %v", pair, err)
		}
	}
	for _, one := range s.list {
		if one.given == nil {
			continue
		}
		if err := assign(one.target, one.given); err != nil {
			return misusef("--%s: %v", one.name, err)
		}
	}
	return nil
}

// lookup finds a setting by name, in either spelling (min-lr, min_lr).
func (s *settings) lookup(name string) (*setting, error) {
	if one := s.byName[fold(name)]; one != nil {
		return one, nil
	}
	var names []string
	for _, one := range s.list {
		names = append(names, one.name)
	}
	return nil, fmt.Errorf("unknown setting %q%s", name, didYouMean(name, names, "", ""))
}

// Set keeps the text of a flag after checking that it can be assigned.
func (one *setting) Set(text string) error {
	given := append(one.given, text)
	if err := assign(reflect.New(one.target.Type()).Elem(), given); err != nil {
		return err
	}
	one.given = given
	return nil
}

// String is the setting's value as one would type it.
func (one *setting) String() string {
	if one == nil || !one.target.IsValid() {
		return ""
	}
	return formatValue(one.target)
}

// Type names the kind of value in help texts.
func (one *setting) Type() string {
	switch t := one.target.Type(); {
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

var (
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func isText(t reflect.Type) bool { return reflect.PointerTo(t).Implements(textType) }

// assignable reports whether assign knows the type.
func assignable(t reflect.Type) bool {
	if t.Kind() == reflect.Slice && !isText(t) {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Bool, reflect.String, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint32, reflect.Uint64:
		return true
	}
	return isText(t)
}

// assign parses texts into v. A list takes all texts, each of them itself a
// comma-separated list; any other type the last.
func assign(v reflect.Value, texts []string) error {
	if v.Kind() != reflect.Slice || isText(v.Type()) {
		return assignOne(v, texts[len(texts)-1])
	}
	list := reflect.MakeSlice(v.Type(), 0, len(texts))
	for _, text := range texts {
		parts, err := splitList(text)
		if err != nil {
			return err
		}
		for _, part := range parts {
			item := reflect.New(v.Type().Elem()).Elem()
			if err := assignOne(item, part); err != nil {
				return err
			}
			list = reflect.Append(list, item)
		}
	}
	v.Set(list)
	return nil
}

func assignOne(v reflect.Value, text string) error {
	if isText(v.Type()) {
		return v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text))
	}
	if v.Type() == durationType {
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("want a number with its unit, such as 90s or 10m, got %q", text)
		}
		v.SetInt(int64(d))
		return nil
	}
	bits := 0
	if v.CanInt() || v.CanUint() || v.CanFloat() {
		bits = v.Type().Bits()
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(strings.ToLower(text))
		if err != nil {
			return fmt.Errorf("want true or false, got %q", text)
		}
		v.SetBool(b)
	case reflect.Float32, reflect.Float64:
		x, err := strconv.ParseFloat(text, bits)
		if err != nil || x-x != 0 { // refuses NaN and infinities, which no setting can use
			return fmt.Errorf("want a number, got %q", text)
		}
		v.SetFloat(x)
	case reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(text, 10, bits)
		if err != nil {
			return fmt.Errorf("want a whole number, 0 or more, got %q", text)
		}
		v.SetUint(n)
	default:
		n, err := strconv.ParseInt(text, 10, bits)
		if err != nil {
			return fmt.Errorf("want a whole number, got %q", text)
		}
		v.SetInt(n)
	}
	return nil
}

// splitList splits at commas outside double quotes; nothing is the empty list.
func splitList(text string) ([]string, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	r := csv.NewReader(strings.NewReader(text))
	r.TrimLeadingSpace = true
	parts, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("want a list with commas between its items, got %q", text)
	}
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts, nil
}

// formatValue is the inverse of assign.
func formatValue(v reflect.Value) string {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		text, _ := m.MarshalText()
		return string(text)
	}
	if v.CanFloat() {
		return strconv.FormatFloat(v.Float(), 'f', -1, v.Type().Bits())
	}
	if v.Kind() != reflect.Slice {
		return fmt.Sprint(v.Interface())
	}
	items := make([]string, v.Len())
	for i := range items {
		items[i] = formatValue(v.Index(i))
	}
	return strings.Join(items, ",")
}

// settingPairs lists the settings of a struct that have a value, in its order.
func settingPairs(ptr any) []report.Pair {
	s := &settings{}
	s.add(ptr, "")
	var pairs []report.Pair
	for _, one := range s.list {
		if text := one.String(); text != "" && !(one.target.Kind() != reflect.Bool && one.target.IsZero()) {
			pairs = append(pairs, report.Pair{Name: one.name, Value: text})
		}
	}
	return pairs
}
