package inference

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxNesting is how deep lists and objects may nest where nothing of them is kept.
const maxNesting = 100

// A scanner reads JSON (RFC 8259) from front to back, straight into the values that it
// is asked for. encoding/json takes six times as long for a tensor, and cannot know from
// the shape how much to reserve. Beyond the RFC it takes NaN, Infinity and -Infinity where
// numbers are, since Python writes them.
type scanner struct {
	b []byte
	i int // of the next byte
}

// next skips white space and returns the next byte without consuming it; 0 at the end,
// which no value begins with.
func (s *scanner) next() byte {
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case ' ', '\n', '\r', '\t':
			s.i++
		default:
			return c
		}
	}
	return 0
}

// take consumes c if it is what comes next.
func (s *scanner) take(c byte) bool {
	if s.next() != c || s.i >= len(s.b) {
		return false
	}
	s.i++
	return true
}

// word consumes a literal such as null if it is what comes next.
func (s *scanner) word(w string) bool {
	s.next()
	end := s.i + len(w)
	if end > len(s.b) || string(s.b[s.i:end]) != w || end < len(s.b) && isName(s.b[end]) {
		return false
	}
	s.i = end
	return true
}

func isName(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// found describes what comes next, in a few words.
func (s *scanner) found() string {
	c := s.next()
	switch {
	case s.i >= len(s.b):
		return "the end"
	case c == '"':
		return "a string"
	case c == '[':
		return "a list"
	case c == '{':
		return "an object"
	}
	end := s.i + 1
	for end < len(s.b) && end < s.i+24 && (isName(s.b[end]) || bytes.IndexByte([]byte("+-."), s.b[end]) >= 0) {
		end++
	}
	return strconv.Quote(string(s.b[s.i:end]))
}

// expected returns the error that something else comes next.
func (s *scanner) expected(what string) error {
	got := s.found() // skips the white space before it
	return Errorf(Invalid, "JSON, byte %d: expected %s, got %s", s.i, what, got)
}

// object reads an object, calling field with each key; field consumes the value.
func (s *scanner) object(what string, field func(key string) error) error {
	if !s.take('{') {
		return s.expected(what)
	}
	if s.take('}') {
		return nil
	}
	for {
		key, err := s.text("a key in quotes")
		if err != nil {
			return err
		}
		if !s.take(':') {
			return s.expected("a colon after the key " + strconv.Quote(key))
		}
		if err := field(key); err != nil {
			return err
		}
		if s.take('}') {
			return nil
		}
		if !s.take(',') {
			return s.expected("a comma or the end of the object")
		}
	}
}

// list reads a list, calling item at each value, which item consumes.
func (s *scanner) list(what string, item func(i int) error) error {
	if !s.take('[') {
		return s.expected(what)
	}
	if s.take(']') {
		return nil
	}
	for i := 0; ; i++ {
		if err := item(i); err != nil {
			return err
		}
		if s.take(']') {
			return nil
		}
		if !s.take(',') {
			return s.expected("a comma or the end of the list")
		}
	}
}

// keys are those of the protocol, which are not allocated anew for each request.
var keys = func() map[string]string {
	m := map[string]string{}
	for _, k := range []string{"id", "parameters", "inputs", "outputs", "name", "shape", "datatype", "data", "model_name", "model_version", "error",
		binaryDataSize, binaryData, binaryDataOutput, "sequence_id", "sequence_start", "sequence_end", "priority", "timeout",
		"FP32", "FP64", "INT32", "INT64", "BOOL", "BYTES"} {
		m[k] = k
	}
	return m
}()

// text reads a string, whose bytes must be UTF-8.
func (s *scanner) text(what string) (string, error) {
	if s.next() != '"' {
		return "", s.expected(what)
	}
	start := s.i + 1
	ascii := byte(0)
	for i := start; i < len(s.b); i++ {
		c := s.b[i]
		switch {
		case c == '"':
			raw := s.b[start:i]
			if ascii >= utf8.RuneSelf && !utf8.Valid(raw) {
				return "", Errorf(Invalid, "JSON, byte %d: the string is not UTF-8; send other bytes in binary form (binary_data_size)", start)
			}
			s.i = i + 1
			if k, ok := keys[string(raw)]; ok {
				return k, nil
			}
			return string(raw), nil
		case c == '\\':
			return s.escaped(start, i)
		case c < ' ':
			return "", Errorf(Invalid, "JSON, byte %d: a string has the control character %q, expected \\u%04x", i, c, c)
		}
		ascii |= c
	}
	return "", Errorf(Invalid, "JSON, byte %d: the string has no end", start-1)
}

// escaped reads on from the first backslash of a string that begins at start.
func (s *scanner) escaped(start, i int) (string, error) {
	out := append(make([]byte, 0, 2*(i-start)+16), s.b[start:i]...)
	for i < len(s.b) {
		c := s.b[i]
		switch {
		case c == '"':
			if !utf8.Valid(out) {
				return "", Errorf(Invalid, "JSON, byte %d: the string is not UTF-8; send other bytes in binary form (binary_data_size)", start)
			}
			s.i = i + 1
			return string(out), nil
		case c < ' ':
			return "", Errorf(Invalid, "JSON, byte %d: a string has the control character %q, expected \\u%04x", i, c, c)
		case c != '\\':
			out = append(out, c)
			i++
			continue
		}
		if i+1 >= len(s.b) {
			break
		}
		c = s.b[i+1]
		i += 2
		switch c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := hex4(s.b, i)
			if ok && utf16.IsSurrogate(r) {
				low, second := rune(0), false
				if i+6 <= len(s.b) && s.b[i+4] == '\\' && s.b[i+5] == 'u' {
					low, second = hex4(s.b, i+6)
				}
				r = utf16.DecodeRune(r, low)
				ok = second && r != utf8.RuneError
				i += 6
			}
			if !ok {
				return "", Errorf(Invalid, "JSON, byte %d: \\u must have four hexadecimal digits, of a character beyond U+FFFF two such pairs", min(i, len(s.b)))
			}
			out = utf8.AppendRune(out, r)
			i += 4
		default:
			return "", Errorf(Invalid, "JSON, byte %d: a string has \\ before %q, which means nothing", i-1, c)
		}
	}
	return "", Errorf(Invalid, "JSON, byte %d: the string has no end", start-1)
}

// hex4 reads four hexadecimal digits.
func hex4(b []byte, i int) (r rune, ok bool) {
	if i+4 > len(b) {
		return 0, false
	}
	for _, c := range b[i : i+4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// skip reads a value of any kind and keeps nothing of it.
func (s *scanner) skip(depth int) error {
	if depth > maxNesting {
		return Errorf(Invalid, "JSON, byte %d: lists and objects nest more than %d deep", s.i, maxNesting)
	}
	switch c := s.next(); {
	case c == '{':
		return s.object("", func(string) error { return s.skip(depth + 1) })
	case c == '[':
		return s.list("", func(int) error { return s.skip(depth + 1) })
	case c == '"':
		_, err := s.text("")
		return err
	case s.word("true"), s.word("false"), s.word("null"):
		return nil
	}
	if _, ok := s.special(); ok {
		return nil
	}
	n := scanNumber(s.b, s.i)
	if n.end == 0 {
		return s.expected("a value")
	}
	s.i = n.end
	return nil
}

// CheckJSON returns what is wrong with a body that a reader would take which overlooks it: a
// string that is not UTF-8, half of a surrogate pair, a key that an object has twice. Errors are of
// *Error.
func CheckJSON(body []byte) error {
	for i := 0; i < len(body); {
		r, n := utf8.DecodeRune(body[i:])
		if r == utf8.RuneError && n == 1 {
			return Errorf(Invalid, "JSON, byte %d: the body is not UTF-8, in which JSON is written", i)
		}
		i += n
	}
	return (&scanner{b: body}).once(0)
}

// once reads a value of any kind, in whose objects a key may be there once.
func (s *scanner) once(depth int) error {
	if depth > maxNesting {
		return Errorf(Invalid, "JSON, byte %d: lists and objects nest more than %d deep", s.i, maxNesting)
	}
	switch s.next() {
	case '{':
		seen := map[string]bool{}
		return s.object("", func(key string) error {
			if seen[key] {
				return Errorf(Invalid, "JSON, byte %d: the key %q is given twice", s.i, key)
			}
			seen[key] = true
			return s.once(depth + 1)
		})
	case '[':
		return s.list("", func(int) error { return s.once(depth + 1) })
	}
	return s.skip(depth)
}

// special reads NaN, Infinity or -Infinity.
func (s *scanner) special() (f float64, ok bool) {
	switch {
	case s.word("NaN"):
		return math.NaN(), true
	case s.word("Infinity"):
		return math.Inf(1), true
	case s.word("-Infinity"):
		return math.Inf(-1), true
	}
	return 0, false
}

// appendText appends a string as JSON. What is not UTF-8 of it becomes U+FFFD.
func appendText(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	b = append(b, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(append(b, s[from:]...), '"')
}
