package inference

import (
	"encoding/binary"
	"math"
	"slices"
	"strconv"
)

// Numbers in text. strconv defines what is right; the code here gives the same at a
// third of the time for the numbers that tensors usually hold, and knows when to ask it.

// A number is one of JSON: mant * 10^exp, negated if neg.
type number struct {
	mant  uint64
	exp   int
	end   int // of its bytes; 0: there is no number
	neg   bool
	exact bool // mant and exp are right, because there are at most 19 digits
	whole bool // neither a fraction nor an exponent
}

// scanNumber reads the number that begins at b[i].
func scanNumber(b []byte, i int) (n number) {
	n.whole = true
	if i < len(b) && b[i] == '-' {
		n.neg = true
		i++
	}
	first := i
	mant := uint64(0) // wraps if there are more digits than it holds
	for ; i < len(b) && b[i]-'0' < 10; i++ {
		mant = mant*10 + uint64(b[i]-'0')
	}
	digits := i - first
	if digits == 0 || b[first] == '0' && digits > 1 {
		return number{}
	}
	if i < len(b) && b[i] == '.' {
		i++
		n.whole = false
		point := i
		for i+8 <= len(b) {
			eight, ok := eightDigits(binary.LittleEndian.Uint64(b[i:]))
			if !ok {
				break
			}
			mant = mant*1e8 + eight
			i += 8
		}
		for ; i < len(b) && b[i]-'0' < 10; i++ {
			mant = mant*10 + uint64(b[i]-'0')
		}
		n.exp = point - i
		if n.exp == 0 {
			return number{}
		}
		digits -= n.exp
	}
	n.exact = digits <= 19 || significant(b[first:i]) <= 19
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		n.whole = false
		negative := false
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			negative = b[i] == '-'
			i++
		}
		first = i
		e := 0
		for ; i < len(b) && b[i]-'0' < 10; i++ {
			if e < 1e6 {
				e = e*10 + int(b[i]-'0')
			}
		}
		if i == first {
			return number{}
		}
		if negative {
			e = -e
		}
		n.exp += e
	}
	n.mant, n.end = mant, i
	return n
}

// eightDigits returns the number of eight characters, the first in the lowest byte, if
// all of them are digits.
func eightDigits(x uint64) (n uint64, ok bool) {
	const zeros = 0x3030303030303030
	// The upper halves of the bytes must be 3, and stay so when 6 is added.
	if x&0xf0f0f0f0f0f0f0f0|(x+0x0606060606060606)&0xf0f0f0f0f0f0f0f0>>4 != zeros|zeros>>4 {
		return 0, false
	}
	x -= zeros
	x = x*10 + x>>8 // pairs, in every second byte
	x = (x&0x000000ff000000ff)*(100+1000000<<32) + (x>>16&0x000000ff000000ff)*(1+10000<<32)
	return x >> 32, true
}

// significant returns the number of digits without zeros at the beginning.
func significant(text []byte) int {
	n := 0
	for _, c := range text {
		if c != '.' && (n > 0 || c != '0') {
			n++
		}
	}
	return n
}

// pow10 are the powers of ten that float64 has exactly.
var pow10 = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// near returns the number as float64 if one operation gives it: correctly rounded for a
// mant of 53 bits, and at most two units in the last place off otherwise.
func (n *number) near() (f float64, ok bool) {
	if !n.exact || n.exp < -22 || n.exp > 22 {
		return 0, false
	}
	f = float64(n.mant)
	if n.exp < 0 {
		f /= pow10[-n.exp]
	} else {
		f *= pow10[n.exp]
	}
	if n.neg {
		f = -f
	}
	return f, true
}

// float32 returns the float32 nearest to the number, which b holds from start, and
// false if that is beyond the greatest.
func (n *number) float32(b []byte, start int) (float32, bool) {
	if f, ok := n.near(); ok {
		if g, sure := toFloat32(f); sure {
			return g, true
		}
	}
	f, err := strconv.ParseFloat(string(b[start:n.end]), 32)
	return float32(f), err == nil
}

// toFloat32 rounds f and reports whether that is also the float32 nearest to all numbers
// within four units in the last place of f. Rounding twice goes wrong only near the
// middle of two float32; where float32 has fewer bits, or none, f is not judged.
func toFloat32(f float64) (g float32, sure bool) {
	const unit, margin = 1 << 29, 4 // a float32's last bit, in units of float64
	size := math.Abs(f)
	fromMiddle := math.Float64bits(f)%unit - (unit/2 - margin)
	return float32(f), size >= 0x1p-126 && size <= math.MaxFloat32 && fromMiddle > 2*margin || size == 0
}

// float64 returns the float64 nearest to the number, likewise.
func (n *number) float64(b []byte, start int) (float64, bool) {
	if f, ok := n.near(); ok && n.mant <= 1<<53 {
		return f, true
	}
	f, err := strconv.ParseFloat(string(b[start:n.end]), 64)
	return f, err == nil
}

// integer returns the number of a datatype, for UINT64 its bits, and false if the
// datatype does not have it.
func (n *number) integer(b []byte, start int, d Datatype) (int64, bool) {
	if !n.whole {
		return 0, false
	}
	if d == UINT64 {
		u := n.mant
		if !n.exact {
			var err error
			if u, err = strconv.ParseUint(string(b[start:n.end]), 10, 64); err != nil {
				return 0, false
			}
		}
		return int64(u), !n.neg || u == 0
	}
	if !n.exact || n.mant > 1<<63 || n.mant == 1<<63 && !n.neg {
		return 0, false // 19 digits hold each int64
	}
	x := int64(n.mant)
	if n.neg {
		x = -x
	}
	lo, hi := d.bounds()
	return x, x >= lo && x <= hi
}

// appendFloat64 appends the shortest number that reads back as f, and null for what JSON
// does not have.
func appendFloat64(b []byte, f float64) []byte {
	if f-f != 0 {
		return append(b, "null"...)
	}
	return strconv.AppendFloat(b, f, 'g', -1, 64)
}

// appendFloat32 appends a number that reads back as f, with the fewest digits that do and
// of these the nearest to f, and null for what JSON does not have.
func appendFloat32(b []byte, f float32) []byte {
	bits := math.Float32bits(f)
	switch {
	case f-f != 0:
		return append(b, "null"...)
	case bits>>31 == 1:
		b = append(b, '-')
		f = -f
	}
	if f == 0 {
		return append(b, '0')
	}
	m, places, ok := shortest(f)
	if !ok {
		return strconv.AppendFloat(b, float64(f), 'g', -1, 32)
	}
	return appendDecimal(b, uint64(m), places)
}

// shortest returns the m with the fewest digits for which m / 10^places reads back as f,
// which is greater than zero; ok is false where this is not found out without more bits.
//
// If any number of n digits reads back as f, then the one of n digits nearest to f does:
// also of powers of two in this range, below which float32 lie closer. Nine digits always
// suffice. Most numbers need eight or nine, so that is where the search begins.
func shortest(f float32) (m int64, places int, ok bool) {
	d := float64(f)
	if d < 1e-4 || d >= 1e8 {
		return 0, 0, false
	}
	// The first digit of d is worth 10^top: 1233/4096 is log10 of 2, and the estimate is
	// too small by one at most.
	top := (int(math.Float64bits(d)>>52) - 1023) * 1233 >> 12
	if top >= -1 && d >= pow10[top+1] || top < -1 && d*pow10[-top-1] >= 1 {
		top++
	}
	places = 7 - top
	half := math.Float64frombits(math.Float64bits(d)>>52<<52) * 0x1p-24
	m, fits, sure := nearest(d, half, places)
	if !sure {
		return 0, 0, false
	}
	if !fits {
		m, fits, sure = nearest(d, half, places+1)
		return m, places + 1, fits && sure
	}
	for places > 0 {
		fewer := m / 10
		if m%10 != 0 {
			if fewer, fits, sure = nearest(d, half, places-1); !sure {
				return 0, 0, false
			} else if !fits {
				break
			}
		}
		m = fewer
		places--
	}
	return m, places, true
}

// nearest returns the m for which m / 10^places is nearest to d, and whether that is
// nearer than half a unit in the last place of float32; sure is false if the last bits of
// float64 would decide.
func nearest(d, half float64, places int) (m int64, fits, sure bool) {
	const margin = 1e-6 // the products are off by up to 2^-23
	scaled, room := d*pow10[places], half*pow10[places]
	m = int64(scaled)
	away := scaled - float64(m)
	if away > 0.5 {
		m++
		away = 1 - away
	}
	fits = away < room
	return m, fits, math.Abs(away-room) > margin && (!fits || away < 0.5-margin)
}

// pairs are the numbers of two digits.
const pairs = "00010203040506070809" + "10111213141516171819" + "20212223242526272829" + "30313233343536373839" + "40414243444546474849" +
	"50515253545556575859" + "60616263646566676869" + "70717273747576777879" + "80818283848586878889" + "90919293949596979899"

// appendDecimal appends m / 10^places, m having nine digits and places being twelve at
// most. The digits go where they stay: copying bytes just written stalls the processor.
func appendDecimal(b []byte, m uint64, places int) []byte {
	whole, rest, digits := uint64(0), m, 1
	if power := uint64(pow10[places]); m >= power { // division is slow, and most numbers are below 1
		whole = m / power
		rest -= whole * power
	}
	for float64(whole) >= pow10[digits] {
		digits++
	}
	end := len(b) + digits
	size := digits
	if places > 0 {
		size += 1 + places
	}
	b = slices.Grow(b, size)[:len(b)+size]
	for i := end - 1; digits > 0; digits-- {
		b[i] = byte('0' + whole%10)
		whole /= 10
		i--
	}
	if places == 0 {
		return b
	}
	b[end] = '.'
	tail := b[end+1:]
	for len(tail) >= 2 {
		two := rest % 100
		rest /= 100
		tail[len(tail)-1], tail[len(tail)-2] = pairs[2*two+1], pairs[2*two]
		tail = tail[:len(tail)-2]
	}
	if len(tail) == 1 {
		tail[0] = byte('0' + rest)
	}
	return b
}
