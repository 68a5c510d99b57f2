package settings

import (
	"encoding"
	"encoding/csv"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Assign parses texts into the setting. A list takes all texts, each of which
// is itself a comma-separated list; any other setting takes the last. A text of
// the wrong type is an error. The value's range is not checked: it may depend
// on other settings.
func (s *Setting) Assign(texts ...string) error { return s.assign(s.field, texts) }

// Try returns the error that Assign would return, without assigning.
func (s *Setting) Try(texts ...string) error {
	return s.assign(reflect.New(s.field.Type()).Elem(), texts)
}

// escapes are characters that a shell's argument cannot easily contain.
var escapes = strings.NewReplacer(`\n`, "\n", `\t`, "\t")

func (s *Setting) assign(v reflect.Value, texts []string) error {
	if !s.whole {
		return assign(v, texts)
	}
	items := make([]string, len(texts))
	for i, t := range texts {
		items[i] = escapes.Replace(t)
	}
	v.Set(reflect.ValueOf(items))
	return nil
}

// String returns the setting's value as a user would type it.
func (s *Setting) String() string { return format(s.field) }

var textType = reflect.TypeFor[encoding.TextUnmarshaler]()

func isText(t reflect.Type) bool { return reflect.PointerTo(t).Implements(textType) }

// assignable reports whether assign knows the type.
func assignable(t reflect.Type) bool {
	t = itemType(t)
	switch t.Kind() {
	case reflect.Bool, reflect.String, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint32, reflect.Uint64:
		return true
	}
	return isText(t)
}

// assign parses texts into v. A list takes all texts, each of which is itself a
// comma-separated list; any other type takes the last.
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

// splitList splits at commas outside double quotes; empty text is the empty
// list.
func splitList(text string) ([]string, error) {
	item := strings.TrimSpace(text)
	if item == "" {
		return nil, nil
	}
	if !strings.ContainsAny(item, ",\"\r\n") { // a reader's buffer for each item of a long list is much
		return []string{item}, nil
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

// format is the inverse of assign.
func format(v reflect.Value) string {
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
		items[i] = format(v.Index(i))
	}
	return strings.Join(items, ",")
}
