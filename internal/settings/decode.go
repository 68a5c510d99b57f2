package settings

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// olderName is a name that a setting had in older versions.
type olderName struct {
	name   string            // today's too, if only values were renamed
	values map[string]string // its values that were renamed: by the old one, without quotes
}

// older returns the names of a was tag.
func (s *Setting) older() (list []olderName) {
	for _, one := range strings.Split(s.was, ",") {
		words := strings.Fields(one)
		if len(words) == 0 {
			continue
		}
		o := olderName{words[0], map[string]string{}}
		for _, pair := range words[1:] {
			was, now, ok := strings.Cut(pair, "=")
			if !ok {
				panic(fmt.Sprintf("settings: was of %s: want old=new, got %q", s.Name, pair))
			}
			o.values[was] = now
		}
		list = append(list, o)
	}
	return list
}

// value returns the JSON of today's value for that of the older one.
func (o olderName) value(v json.RawMessage) json.RawMessage {
	if now, renamed := o.values[strings.Trim(string(v), `"`)]; renamed {
		v, _ = json.Marshal(now) // a string always has a JSON form
	}
	return v
}

// Decode parses JSON into the struct that ptr points to. Names that its
// settings and their values had in older versions (their `was` tags) are read as
// the current ones. A setting added after the JSON was written gets its former behaviour
// (its `before` tag), unless ptr already holds a value. It is meant for the
// UnmarshalJSON of a configuration, which must pass a pointer of a type without
// that method.
//
// Unknown names, a setting given under both its names, and values of the wrong
// type are errors.
func Decode(raw []byte, ptr any) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return err
	}
	renamed := false
	for _, s := range List(ptr) {
		for _, older := range s.older() {
			v, old := fields[older.name]
			if !old {
				continue
			}
			if older.name == s.Name {
				fields[s.Name], renamed = older.value(v), true
				continue
			}
			if _, both := fields[s.Name]; both {
				return fmt.Errorf("%s and %s are one setting", older.name, s.Name)
			}
			delete(fields, older.name)
			fields[s.Name], renamed = older.value(v), true
		}
	}
	if renamed {
		var err error
		if raw, err = json.Marshal(fields); err != nil {
			return err
		}
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(ptr); err != nil {
		return err
	}
	for _, s := range List(ptr) {
		if _, given := fields[s.Name]; given || s.before == "" || !s.field.IsZero() {
			continue
		}
		if err := json.Unmarshal([]byte(s.before), s.field.Addr().Interface()); err != nil {
			panic(fmt.Sprintf("settings: before of %s: %v", s.Name, err))
		}
	}
	return nil
}

// AssignJSON sets the setting to a JSON value: a number, true, false, or a list of the
// setting's items; a text is read as [Setting.Assign] does. Its errors say what is wanted.
// The value's range is not checked.
func (s *Setting) AssignJSON(raw []byte) error {
	raw = bytes.TrimSpace(raw)
	var text string
	switch {
	case len(raw) > 0 && raw[0] == '"':
		if err := json.Unmarshal(raw, &text); err != nil {
			return err
		}
		return s.Assign(text)
	case len(raw) > 0 && raw[0] == '[' && s.IsList():
		list := reflect.New(s.field.Type())
		if err := json.Unmarshal(raw, list.Interface()); err != nil {
			return fmt.Errorf("want a list of %s, got %s", s.Kind(), raw)
		}
		s.field.Set(list.Elem())
		return nil
	case len(raw) == 0, raw[0] == '[', raw[0] == '{', raw[0] == 'n':
		return fmt.Errorf("want a %s, got %s", s.Kind(), raw)
	}
	return s.Assign(string(raw))
}
