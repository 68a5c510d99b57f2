package store

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/tune"
)

// A number is a float64 in JSON: the shortest text that is read as the same value, with a point or an exponent so
// that it is not taken for a whole number. JSON has none that are not finite; they are texts.
type number float64

func (x number) MarshalJSON() ([]byte, error) {
	text := strconv.FormatFloat(float64(x), 'g', -1, 64)
	switch {
	case math.IsNaN(float64(x)) || math.IsInf(float64(x), 0):
		text = strconv.Quote(text)
	case !strings.ContainsAny(text, ".e"):
		text += ".0"
	}
	return []byte(text), nil
}

func (x *number) UnmarshalJSON(text []byte) error {
	f, err := strconv.ParseFloat(strings.Trim(string(text), `"`), 64)
	*x = number(f)
	return err
}

func encodeNumbers(list []float64) string {
	var out []number
	for _, x := range list {
		out = append(out, number(x))
	}
	text, _ := json.Marshal(out) // numbers always can be written
	return string(text)
}

func decodeNumbers(text string) (list []float64, err error) {
	var in []number
	err = json.Unmarshal([]byte(text), &in)
	for _, x := range in {
		list = append(list, float64(x))
	}
	return list, err
}

func encodeMeasures(m map[string]float64) string {
	var out map[string]number
	if m != nil {
		out = map[string]number{}
	}
	for name, x := range m {
		out[name] = number(x)
	}
	text, _ := json.Marshal(out)
	return string(text)
}

func decodeMeasures(text string) (map[string]float64, error) {
	var in map[string]number
	if err := json.Unmarshal([]byte(text), &in); err != nil || in == nil {
		return nil, err
	}
	m := map[string]float64{}
	for name, x := range in {
		m[name] = float64(x)
	}
	return m, nil
}

// encodeParams writes the values of a trial so that decodeParams returns them in their types.
func encodeParams(v tune.Values) (string, error) {
	var out map[string]any
	if v != nil {
		out = map[string]any{}
	}
	for name, x := range v {
		switch x := x.(type) {
		case float64:
			out[name] = number(x)
		case int, string:
			out[name] = x
		default:
			return "", fmt.Errorf("tune: the value of %s is a %T; expected a float64, an int or a string", name, x)
		}
	}
	text, err := json.Marshal(out)
	return string(text), err
}

func decodeParams(text string) (tune.Values, error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var v tune.Values
	if err := decoder.Decode(&v); err != nil {
		return nil, err
	}
	for name, x := range v {
		n, ok := x.(json.Number)
		if !ok {
			continue
		}
		var err error
		if strings.ContainsAny(string(n), ".eE") {
			v[name], err = n.Float64()
		} else {
			v[name], err = strconv.Atoi(string(n))
		}
		if err != nil {
			return nil, err
		}
	}
	return v, nil
}

// clean makes a text that every database takes.
func clean(text string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(text, "\x00", ""), "\uFFFD")
}
