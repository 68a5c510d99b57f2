package settings

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Range is the set of numbers that a setting may take, written as
//
//	0..0.99     from 0 to 0.99
//	(0..1]      above 0, up to 1; likewise [0..1) and (0..1)
//	0..         0 or more
//	0|300..1e5  0, or from 300 to 100000
//
// with units where the setting is a time (0s..1h). Infinities and NaN are
// outside every range.
type Range []Interval

// Interval is the numbers from Least to Most, which may be +Inf; Above and
// Below exclude the bound itself.
type Interval struct {
	Least, Most  float64
	Above, Below bool

	least, most string // as printed
}

func parseRange(tag string, t reflect.Type) (Range, error) {
	var r Range
	for _, part := range strings.Split(tag, "|") {
		i := Interval{Most: math.Inf(1)}
		var open, shut bool
		part, i.Above = strings.CutPrefix(part, "(")
		part, open = strings.CutPrefix(part, "[")
		part, i.Below = strings.CutSuffix(part, ")")
		part, shut = strings.CutSuffix(part, "]")
		low, high, interval := strings.Cut(part, "..")
		if i.Above && open || i.Below && shut {
			return nil, fmt.Errorf("range %q: two brackets", tag)
		}
		if !interval {
			high = low
		}
		var err error
		if i.Least, i.least, err = parseBound(low, t); err != nil {
			return nil, fmt.Errorf("range %q: %w", tag, err)
		}
		if high != "" {
			if i.Most, i.most, err = parseBound(high, t); err != nil {
				return nil, fmt.Errorf("range %q: %w", tag, err)
			}
		}
		if i.Most < i.Least {
			return nil, fmt.Errorf("range %q: ends before it begins", tag)
		}
		r = append(r, i)
	}
	return r, nil
}

func parseBound(text string, t reflect.Type) (v float64, plain string, err error) {
	if t == durationType {
		d, err := time.ParseDuration(text)
		return float64(d), text, err
	}
	v, err = strconv.ParseFloat(text, 64)
	if v == math.Trunc(v) {
		return v, strconv.FormatFloat(v, 'f', -1, 64), err // as users write them: 1000000, not 1e+06
	}
	return v, fmt.Sprint(v), err
}

func (r Range) contains(v reflect.Value) bool {
	var x float64
	switch {
	case v.CanInt():
		x = float64(v.Int())
	case v.CanUint():
		x = float64(v.Uint())
	default:
		x = v.Float()
	}
	for _, i := range r {
		if x >= i.Least && x <= i.Most && !(i.Above && x == i.Least) && !(i.Below && x == i.Most) && !math.IsInf(x, 0) {
			return true
		}
	}
	return false
}

// String returns the range as error messages print it: "a number from 0 to
// 0.99".
func (r Range) String() string {
	var parts []string
	for _, i := range r {
		parts = append(parts, i.String())
	}
	return strings.Join(parts, ", or ")
}

// short returns the range as help prints it: "0 to 0.99".
func (r Range) short() string {
	var parts []string
	for _, i := range r {
		parts = append(parts, strings.TrimPrefix(strings.TrimPrefix(i.String(), "a number "), "from "))
	}
	return strings.Join(parts, ", or ")
}

func (i Interval) String() string {
	switch {
	case i.Least == i.Most:
		return i.least
	case i.most == "" && i.Above:
		return "a number above " + i.least
	case i.most == "":
		return i.least + " or more"
	case i.Above && i.Below:
		return fmt.Sprintf("a number above %s and below %s", i.least, i.most)
	case i.Above:
		return fmt.Sprintf("a number above %s, up to %s", i.least, i.most)
	case i.Below:
		return fmt.Sprintf("a number from %s to below %s", i.least, i.most)
	}
	return fmt.Sprintf("a number from %s to %s", i.least, i.most)
}
