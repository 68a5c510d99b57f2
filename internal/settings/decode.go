package settings

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Decode parses JSON into the struct that ptr points to. Names that its
// settings had in older versions (their `was` tags) are read as the current
// names. A setting added after the JSON was written gets its former behaviour
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
		v, old := fields[s.was]
		if s.was == "" || !old {
			continue
		}
		if _, both := fields[s.Name]; both {
			return fmt.Errorf("%s and %s are one setting", s.was, s.Name)
		}
		delete(fields, s.was)
		fields[s.Name], renamed = v, true
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
