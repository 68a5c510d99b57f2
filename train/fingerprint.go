package train

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Fingerprint identifies the settings and the data of a run, so that a
// checkpoint is not continued with others. The zero Fingerprint is that of a run
// without either.
type Fingerprint struct {
	Settings map[string]string // by name, as JSON
	Data     map[string]string // hashes by part, such as "training rows"
}

// NewFingerprint returns the Fingerprint of a struct of settings, whose names are
// those of its JSON object. It panics if settings has no such form.
func NewFingerprint(settings any) Fingerprint {
	text, err := json.Marshal(settings)
	var fields map[string]json.RawMessage
	if err == nil {
		err = json.Unmarshal(text, &fields)
	}
	if err != nil {
		panic("train: NewFingerprint: " + err.Error())
	}
	f := Fingerprint{Settings: map[string]string{}, Data: map[string]string{}}
	for name, value := range fields {
		f.Settings[name] = string(value)
	}
	return f
}

// AddData adds the hash of a part of the data, given as numbers or slices of
// numbers of fixed size. It panics for values of other types.
func (f Fingerprint) AddData(part string, values ...any) {
	h := sha256.New()
	for _, v := range values {
		if err := binary.Write(h, binary.LittleEndian, v); err != nil {
			panic("train: AddData: " + err.Error())
		}
	}
	f.Data[part] = fmt.Sprintf("%x", h.Sum(nil)[:12])
}

// differs describes the first difference between a checkpoint's Fingerprint and
// that of the run which resumes it, or is "".
func (f Fingerprint) differs(now Fingerprint) string {
	for _, name := range union(f.Settings, now.Settings) {
		if was, is := f.Settings[name], now.Settings[name]; was != is {
			return fmt.Sprintf("%s %s, this run has %s", name, orNone(was), orNone(is))
		}
	}
	for _, part := range union(f.Data, now.Data) {
		if f.Data[part] != now.Data[part] {
			return "other " + part + " than this run has"
		}
	}
	return ""
}

func union(a, b map[string]string) []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(names)
	return slices.Compact(names)
}

func orNone(value string) string {
	if value == "" {
		return "none"
	}
	return value
}
