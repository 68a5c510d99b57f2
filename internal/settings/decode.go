package settings

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Decode parses JSON into the struct that ptr points to. Names that its settings
// had in older versions (their `was` tags) stand for those of today; a name that
// it never had is an error. It is for the UnmarshalJSON of a configuration, which
// passes a pointer of a type without that method.
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
	return d.Decode(ptr)
}
