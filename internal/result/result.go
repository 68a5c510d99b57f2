// Package result writes results as JSON objects. It differs from encoding/json in that a
// number that is not finite, which JSON has none for, is null, an empty list is a list
// where Go's is nil, and an object may be written in parts.
package result

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
)

// Schema returns the name of a kind of object: the value of its key "schema".
func Schema(name string, version int) string { return fmt.Sprintf("carousel.%s.v%d", name, version) }

// Object returns v, a struct or a pointer to one, as an object without its end, so that
// fields can be added: its schema, and its fields.
func Object(schema string, v any) ([]byte, error) {
	text, err := AppendFields(fmt.Appendf(nil, `{"schema":%q`, schema), reflect.Indirect(reflect.ValueOf(v)))
	if err != nil {
		return nil, fmt.Errorf("result as JSON: %w", err)
	}
	return text, nil
}

// JSON returns a value of any type as JSON.
func JSON(v any) ([]byte, error) { return AppendValue(nil, reflect.ValueOf(v)) }

// Parts writes an object whose value comes in parts, structs of one type: the first part
// begins the object, and of the others the elements of its list are added. The fields
// behind the list are those of the last part.
type Parts struct {
	rest     reflect.Value // the last part
	fields   []Field
	list     int // of the fields; their number if there is none
	elements int // of the list so far
}

// Add appends what a part adds to the object, whose first key is its schema.
func (p *Parts) Add(text []byte, schema string, v any) ([]byte, error) {
	x := reflect.Indirect(reflect.ValueOf(v))
	var err error
	if !p.rest.IsValid() { // the first one
		p.fields = Fields(x.Type())
		p.list = listIn(p.fields)
		text, err = appendSome(fmt.Appendf(text, `{"schema":%q`, schema), x, p.fields[:p.list])
		if p.list < len(p.fields) {
			text = fmt.Appendf(text, `,%q:[`, p.fields[p.list].Name)
		}
	}
	p.rest = x
	if p.list < len(p.fields) {
		elements := x.FieldByIndex(p.fields[p.list].Index)
		for i := 0; i < elements.Len() && err == nil; i++ {
			if p.elements++; p.elements > 1 {
				text = append(text, ',')
			}
			text, err = AppendValue(text, elements.Index(i))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("result as JSON: %w", err)
	}
	return text, nil
}

// Rest appends the fields behind the list, and not the end of the object.
func (p *Parts) Rest(text []byte) ([]byte, error) {
	if p.list == len(p.fields) {
		return text, nil
	}
	return appendSome(append(text, ']'), p.rest, p.fields[p.list+1:])
}

// listIn returns the index of the last list of structs among fields, the one that parts
// divide; the number of fields if there is none.
func listIn(fields []Field) int {
	list := len(fields)
	for i, f := range fields {
		if t := f.Go.Type; t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct && !f.Optional {
			list = i
		}
	}
	return list
}

// Elements returns the number of elements of the last list of structs in v, a struct or a
// pointer to one, and each of them as JSON; nil if v has no such list.
func Elements(v any) (each func(i int) (string, error), count int) {
	x := reflect.Indirect(reflect.ValueOf(v))
	fields := Fields(x.Type())
	list := listIn(fields)
	if list == len(fields) {
		return nil, 0
	}
	elements := x.FieldByIndex(fields[list].Index)
	return func(i int) (string, error) {
		text, err := AppendValue(nil, elements.Index(i))
		return string(text), err
	}, elements.Len()
}

// Field is a field of a struct that JSON has, be it an embedded struct's.
type Field struct {
	Name      string
	Index     []int // for reflect.Value.FieldByIndex
	Go        reflect.StructField
	Owner     reflect.Type // the struct that declares it
	omitEmpty bool
	omitZero  bool
	Optional  bool // it may be absent
}

// Fields are those that encoding/json would write, in order. An embedded
// pointer that may be nil says so with the option omitempty, which encoding/json
// passes over there.
func Fields(t reflect.Type) []Field {
	var list []Field
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		one := Field{
			Name: name, Index: f.Index, Go: f, Owner: t,
			omitEmpty: strings.Contains(options, "omitempty"), omitZero: strings.Contains(options, "omitzero"),
		}
		one.Optional = one.omitEmpty || one.omitZero
		if f.Anonymous && name == "" {
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			for _, g := range Fields(inner) {
				g.Index, g.Optional = append(slices.Clone(f.Index), g.Index...), g.Optional || one.Optional
				list = append(list, g)
			}
			continue
		}
		if name == "-" || !f.IsExported() {
			continue
		}
		if name == "" {
			one.Name = f.Name
		}
		list = append(list, one)
	}
	return list
}

// AppendFields writes the fields of a struct, each behind a comma.
func AppendFields(b []byte, v reflect.Value) ([]byte, error) {
	return appendSome(b, v, Fields(v.Type()))
}

// appendSome is AppendFields for some of them.
func appendSome(b []byte, v reflect.Value, fields []Field) ([]byte, error) {
	var err error
	for _, f := range fields {
		x, none := v.FieldByIndexErr(f.Index)
		if none != nil || f.omitEmpty && isEmpty(x) || f.omitZero && x.IsZero() {
			continue
		}
		b = fmt.Appendf(b, `,%q:`, f.Name)
		if b, err = AppendValue(b, x); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return b, nil
}

func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

// AppendValue writes a value as encoding/json does, but a number that is not
// finite, which JSON has none for, as null, and an empty list as such where Go's
// is nil.
func AppendValue(b []byte, v reflect.Value) ([]byte, error) {
	if k := v.Kind(); k == reflect.Pointer || k == reflect.Interface {
		if v.IsNil() {
			return append(b, "null"...), nil
		}
		return AppendValue(b, v.Elem())
	}
	switch v.Interface().(type) {
	case json.Marshaler, encoding.TextMarshaler:
		return appendLeaf(b, v.Interface())
	}
	var err error
	switch v.Kind() {
	case reflect.Float32, reflect.Float64:
		if x := v.Float(); math.IsNaN(x) || math.IsInf(x, 0) {
			return append(b, "null"...), nil
		}
	case reflect.Struct:
		at := len(b)
		if b, err = AppendFields(b, v); err != nil {
			return nil, err
		}
		if len(b) == at {
			return append(b, "{}"...), nil
		}
		b[at] = '{' // in place of the first comma
		return append(b, '}'), nil
	case reflect.Slice, reflect.Array:
		b = append(b, '[')
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = AppendValue(b, v.Index(i)); err != nil {
				return nil, fmt.Errorf("%d: %w", i, err)
			}
		}
		return append(b, ']'), nil
	case reflect.Map:
		b = append(b, '{')
		values := map[string]reflect.Value{}
		for k, x := range v.Seq2() {
			values[k.String()] = x
		}
		for i, k := range slices.Sorted(maps.Keys(values)) {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendLeaf(b, k); err != nil {
				return nil, err
			}
			if b, err = AppendValue(append(b, ':'), values[k]); err != nil {
				return nil, fmt.Errorf("%s: %w", k, err)
			}
		}
		return append(b, '}'), nil
	}
	return appendLeaf(b, v.Interface())
}

// appendLeaf leaves a value to encoding/json.
func appendLeaf(b []byte, v any) ([]byte, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return append(b, bytes.TrimSuffix(text.Bytes(), []byte("\n"))...), nil
}
