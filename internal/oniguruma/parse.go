package oniguruma

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A node is a part of an expression.
type node struct {
	kind  kind
	set   set     // of a char
	class *class  // the same, once compiled
	subs  []*node // of a sequence or a choice; one of the others

	min, max int // of a repeat; a max of unlimited has no end
	lazy     bool

	at assertion // of an assert

	behind, negative bool // of a look around
	solid            bool // a sequence is a group that is more than parentheses
}

type kind uint8

const (
	char     kind = iota // a character of a set
	sequence             // all subs, one after the other; without any, nothing
	choice               // the first of the subs that leads to a match
	repeat
	atomic // its first match only
	around // (?=, (?!, (?<=, (?<!
	assert
)

const unlimited = -1

type assertion uint8

const (
	lineBegin assertion = iota
	lineEnd
	textBegin
	textEnd
	lastLineEnd
	wordBoundary
	noWordBoundary
)

const (
	maxExpression = 1 << 16 // bytes
	maxRepeat     = 1000    // the largest number in braces
	maxDepth      = 200     // of groups and brackets
)

// options are those of (?imx).
type options struct{ ignoreCase, dotAll, extended bool }

type parser struct {
	expr   string
	i      int
	depth  int
	behind int // how many look-behinds are open
	ranges int // of characters so far
}

func (p *parser) fail(format string, a ...any) error {
	return fmt.Errorf("byte %d: "+format, append([]any{p.i + 1}, a...)...)
}

func (p *parser) rest() string { return p.expr[p.i:] }

// take skips s if it comes next.
func (p *parser) take(s string) bool {
	if !strings.HasPrefix(p.rest(), s) {
		return false
	}
	p.i += len(s)
	return true
}

func (p *parser) rune() rune {
	r, n := utf8.DecodeRuneInString(p.rest())
	p.i += n
	return r
}

func parse(expr string) (*node, error) {
	switch {
	case !utf8.ValidString(expr):
		return nil, fmt.Errorf("it is not UTF-8")
	case len(expr) > maxExpression:
		return nil, fmt.Errorf("it is too large: it has more than %d bytes", maxExpression)
	}
	p := &parser{expr: expr}
	n, err := p.choice(options{})
	if err == nil && p.i < len(expr) {
		err = p.fail("a closing parenthesis without an opening one")
	}
	return n, err
}

// choice reads alternatives up to a closing parenthesis.
func (p *parser) choice(o options) (*node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.fail("groups are nested more than %d deep", maxDepth)
	}
	defer func() { p.depth-- }()
	n := &node{kind: choice}
	for {
		branch, err := p.sequence(o)
		if err != nil {
			return nil, err
		}
		last := len(n.subs) - 1
		if last >= 0 && n.subs[last].kind == char && branch.kind == char { // of single characters the order does not matter
			n.subs[last] = &node{kind: char, set: join(n.subs[last].set, branch.set)}
		} else {
			n.subs = append(n.subs, branch)
		}
		if !p.take("|") {
			break
		}
	}
	if len(n.subs) == 1 {
		return n.subs[0], nil
	}
	return n, nil
}

func (p *parser) sequence(o options) (*node, error) {
	n := &node{kind: sequence}
	for p.i < len(p.expr) && p.expr[p.i] != '|' && p.expr[p.i] != ')' {
		if p.skip(o) {
			continue
		}
		term, options, err := p.term(o)
		if err != nil {
			return nil, err
		}
		if options != nil { // they hold for the rest of the group, alternatives included
			o = *options
			if term, err = p.choice(o); err != nil {
				return nil, err
			}
			n.subs = append(n.subs, term)
			break
		}
		if term, err = p.quantifiers(term, o); err != nil {
			return nil, err
		}
		n.subs = append(n.subs, term)
	}
	if len(n.subs) == 1 {
		return n.subs[0], nil
	}
	return n, nil
}

// skip passes over a comment or, in the extended form, white space.
func (p *parser) skip(o options) bool {
	if strings.HasPrefix(p.rest(), "(?#") {
		if _, after, closed := strings.Cut(p.rest(), ")"); closed {
			p.i = len(p.expr) - len(after)
			return true
		}
		return false
	}
	if !o.extended || p.i == len(p.expr) {
		return false
	}
	switch c := p.expr[p.i]; {
	case c == '#':
		_, after, _ := strings.Cut(p.rest(), "\n")
		p.i = len(p.expr) - len(after)
		return true
	case c == ' ', '\t' <= c && c <= '\r':
		p.i++
		return true
	}
	return false
}

// term reads what a quantifier may follow; or options, for what follows.
func (p *parser) term(o options) (*node, *options, error) {
	single := func(s set) (*node, *options, error) {
		if p.ranges += len(s); p.ranges > maxRanges {
			return nil, nil, p.fail("it is too large: its classes have more than %d ranges of characters", maxRanges)
		}
		return &node{kind: char, set: s}, nil, nil
	}
	at := func(a assertion) (*node, *options, error) { return &node{kind: assert, at: a}, nil, nil }
	switch c := p.expr[p.i]; c {
	case '(':
		return p.group(o)
	case '[':
		p.i++
		s, err := p.brackets()
		if err != nil {
			return nil, nil, err
		}
		if o.ignoreCase { // before the complement
			s.set = s.set.folded()
		}
		return single(s.chars())
	case '*', '+', '?':
		return nil, nil, p.fail("%c repeats nothing", c)
	case '{':
		if _, _, n := interval(p.rest()); n > 0 {
			return nil, nil, p.fail("%s repeats nothing", p.rest()[:n])
		}
	case '.':
		p.i++
		if o.dotAll {
			return single(anything)
		}
		return single(set{{'\n', '\n'}}.not())
	case '^':
		p.i++
		return at(lineBegin)
	case '$':
		p.i++
		return at(lineEnd)
	case '\\':
		if len(p.rest()) > 1 {
			if i := strings.IndexByte("AzZbB", p.expr[p.i+1]); i >= 0 {
				p.i += 2
				return at([]assertion{textBegin, textEnd, lastLineEnd, wordBoundary, noWordBoundary}[i])
			}
			if p.take(`\R`) {
				if p.behind > 0 {
					return nil, nil, p.fail(`\R inside a look-behind is not supported`)
				}
				crlf := &node{kind: sequence, subs: []*node{{kind: char, set: set{{'\r', '\r'}}}, {kind: char, set: set{{'\n', '\n'}}}}}
				one := &node{kind: char, set: set{{'\n', '\r'}, {0x85, 0x85}, {0x2028, 0x2029}}}
				return &node{kind: atomic, subs: []*node{{kind: choice, subs: []*node{crlf, one}}}}, nil, nil
			}
		}
		s, isClass, err := p.escape(false)
		if err != nil {
			return nil, nil, err
		}
		if o.ignoreCase && !isClass {
			s = s.folded()
		}
		return single(s)
	}
	r := p.rune()
	s := set{{r, r}}
	if o.ignoreCase {
		s = s.folded()
	}
	return single(s)
}

// group reads what an opening parenthesis begins.
func (p *parser) group(o options) (*node, *options, error) {
	n := &node{kind: sequence}
	switch {
	case !p.take("(?"):
		if p.take("(*") {
			return nil, nil, p.fail("callouts are not supported")
		}
		p.take("(")
		n.solid = true
	case p.take(":"):
	case p.take(">"):
		n.kind = atomic
	case p.take("="):
		n.kind = around
	case p.take("!"):
		n.kind, n.negative = around, true
	case p.take("<="):
		n.kind, n.behind = around, true
	case p.take("<!"):
		n.kind, n.behind, n.negative = around, true, true
	case p.take("<"): // a name, which nothing asks for
		name, _, closed := strings.Cut(p.rest(), ">")
		if !closed || name == "" || strings.ContainsAny(name, "()|") {
			return nil, nil, p.fail("the name of a group is not closed")
		}
		p.i += len(name) + 1
		n.solid = true
	default:
		on := true
		n.solid = true
		for {
			switch {
			case p.take("-"):
				on = false
			case p.take("i"):
				o.ignoreCase = on
			case p.take("m"):
				o.dotAll = on
			case p.take("x"):
				o.extended = on
			case p.take(")"):
				return nil, &o, nil
			case p.take(":"):
				return p.closed(n, o)
			default:
				return nil, nil, p.fail("groups that begin with (?%.1s are not supported", p.rest())
			}
		}
	}
	if p.behind > 0 && (n.kind == atomic || n.kind == around && !n.behind) {
		return nil, nil, p.fail("a look-ahead or an atomic group inside a look-behind is not supported")
	}
	if n.behind {
		p.behind++
		defer func() { p.behind-- }()
	}
	return p.closed(n, o)
}

// closed reads the inside of a group and its end.
func (p *parser) closed(n *node, o options) (*node, *options, error) {
	inside, err := p.choice(o)
	if err != nil {
		return nil, nil, err
	}
	if !p.take(")") {
		return nil, nil, p.fail("a group is not closed")
	}
	n.subs = []*node{inside}
	return n, nil, nil
}

// interval reads {n}, {n,}, {,m} or {n,m} at the beginning of s and returns its
// length; that of anything else is 0, for it stands for itself.
func interval(s string) (low, high, n int) {
	inside, _, closed := strings.Cut(s, "}")
	if !closed || inside == "" || inside[0] != '{' {
		return 0, 0, 0
	}
	from, to, both := strings.Cut(inside[1:], ",")
	if !both {
		to = from
	}
	digits := func(s string) bool {
		return strings.Trim(s, "0123456789") == ""
	}
	if !digits(from) || !digits(to) || from == "" && to == "" {
		return 0, 0, 0
	}
	number := func(s string, none int) int {
		if s == "" {
			return none
		}
		v, err := strconv.Atoi(s)
		if err != nil {
			v = maxRepeat + 1
		}
		return v
	}
	return number(from, 0), number(to, unlimited), len(inside) + 1
}

// quantifiers wraps a term in what repeats it.
func (p *parser) quantifiers(n *node, o options) (*node, error) {
	for p.i < len(p.expr) {
		if p.skip(o) {
			continue
		}
		start := p.i
		low, high, length, greedyOnly := 0, unlimited, 1, false
		switch p.expr[p.i] {
		case '*':
		case '+':
			low = 1
		case '?':
			high = 1
		default:
			if low, high, length = interval(p.rest()); length == 0 {
				return n, nil
			}
			greedyOnly = !strings.Contains(p.rest()[:length], ",") // that of {n}
		}
		switch {
		case low > maxRepeat || high > maxRepeat:
			return nil, p.fail("%s repeats more than %d times", p.rest()[:length], maxRepeat)
		case fixed(n):
			return nil, p.fail("%s repeats a position in the text", p.rest()[:length])
		}
		p.i += length
		possessive := false
		if high != unlimited && low > high { // Oniguruma's notation
			low, high, possessive = high, low, true
		}
		r := &node{kind: repeat, min: low, max: high, subs: []*node{n}}
		switch {
		case greedyOnly || possessive: // ? and + that follow apply to the repetition as a whole
		case p.take("?"):
			r.lazy = true
		case length == 1 && p.take("+"):
			possessive = true
		}
		n = r
		if possessive {
			if p.behind > 0 {
				p.i = start
				return nil, p.fail("a possessive quantifier inside a look-behind is not supported")
			}
			n = &node{kind: atomic, subs: []*node{r}}
		}
	}
	return n, nil
}

// fixed reports whether n is nothing but a condition on a position, which
// Oniguruma does not repeat.
func fixed(n *node) bool {
	return n.kind == assert || n.kind == around || n.kind == sequence && !n.solid && len(n.subs) == 1 && fixed(n.subs[0])
}

// A bracketed class, which may be a complement.
type bracketed struct {
	set set
	not bool
}

func (b bracketed) chars() set {
	if b.not {
		return b.set.not()
	}
	return b.set
}

// brackets reads a class behind its opening bracket.
func (p *parser) brackets() (b bracketed, err error) {
	if p.depth++; p.depth > maxDepth {
		return b, p.fail("classes are nested more than %d deep", maxDepth)
	}
	defer func() { p.depth-- }()
	b.not = p.take("^")
	var both set // what stands before && so far
	var parts []set
	intersect := false
	finish := func() {
		s := join(parts...)
		if intersect {
			s = both.and(s)
		}
		both, parts, intersect = s, nil, true
	}
	for first := true; ; first = false {
		switch {
		case p.i == len(p.expr):
			return b, p.fail("a class is not closed")
		case first && strings.HasPrefix(p.rest(), "]") && !strings.Contains(p.rest()[1:], "]"):
			return b, p.fail("a class is empty")
		case !first && p.take("]"):
			finish()
			b.set = both
			return b, nil
		case p.take("&&"):
			finish()
			continue
		case strings.HasPrefix(p.rest(), "[:"):
			name, _, closed := strings.Cut(p.rest()[2:], ":]")
			class, known := posix()[strings.TrimPrefix(name, "^")]
			if !closed || !known {
				return b, p.fail("the class %.20s is not closed, or not known", p.rest())
			}
			if name[0] == '^' {
				class = class.not()
			}
			parts = append(parts, class)
			p.i += len(name) + 4
			continue
		case p.take("["):
			inside, err := p.brackets()
			if err != nil {
				return b, err
			}
			parts = append(parts, inside.chars())
			continue
		}
		from, isClass, err := p.member()
		if err != nil {
			return b, err
		}
		ranged := strings.HasPrefix(p.rest(), "-") && len(p.rest()) > 1 && p.rest()[1] != ']' && p.rest()[1] != '[' && !strings.HasPrefix(p.rest()[1:], "&&")
		if !ranged {
			parts = append(parts, from)
			continue
		}
		if isClass {
			return b, p.fail("a range begins with a class")
		}
		p.i++
		to, isClass, err := p.member()
		switch {
		case err != nil:
			return b, err
		case isClass:
			return b, p.fail("a range ends with a class")
		case to[0][0] < from[0][0]:
			return b, p.fail("the range %c-%c is empty", from[0][0], to[0][0])
		}
		parts = append(parts, set{{from[0][0], to[0][0]}})
		// A sign that follows a range stands for itself.
		if strings.HasPrefix(p.rest(), "-") {
			p.i++
			parts = append(parts, set{{'-', '-'}})
		}
	}
}

// member reads a character or an escape inside brackets.
func (p *parser) member() (s set, isClass bool, err error) {
	if p.rest()[0] == '\\' {
		return p.escape(true)
	}
	r := p.rune()
	return set{{r, r}}, false, nil
}

// classes are the escapes that stand for a class of characters.
var classes = map[byte]string{'s': "space", 'd': "digit", 'w': "word", 'h': "xdigit"}

var controls = map[byte]rune{'t': '\t', 'v': '\v', 'n': '\n', 'r': '\r', 'f': '\f', 'a': '\a', 'e': 0x1B}

// escape reads a backslash with what belongs to it.
func (p *parser) escape(inClass bool) (s set, isClass bool, err error) {
	start := p.i
	p.i++
	if p.i == len(p.expr) {
		return nil, false, p.fail("a backslash ends it")
	}
	refuse := func(what string) (set, bool, error) {
		p.i = start
		return nil, false, p.fail("%s", what)
	}
	one := func(r rune) (set, bool, error) { return set{{r, r}}, false, nil }
	coded := func(digits string, base int) (set, bool, error) {
		v, err := strconv.ParseUint(digits, base, 32)
		if err != nil || v > unicode.MaxRune || 0xD800 <= v && v <= 0xDFFF {
			return refuse("an escape does not hold the number of a character")
		}
		return one(rune(v))
	}
	hex := func(most int) string {
		n := 0
		for n < most && n < len(p.rest()) && strings.IndexByte("0123456789abcdefABCDEF", p.rest()[n]) >= 0 {
			n++
		}
		p.i += n
		return p.expr[p.i-n : p.i]
	}
	c := p.expr[p.i]
	if name, ok := classes[c|0x20]; ok {
		p.i++
		s := posix()[name]
		if name == "word" && !inClass {
			s = word()
		}
		if c < 'a' {
			s = s.not()
		}
		return s, true, nil
	}
	if r, ok := controls[c]; ok {
		p.i++
		return one(r)
	}
	switch {
	case c == 'b' && inClass:
		p.i++
		return one('\b')
	case (c == 'p' || c == 'P') && strings.HasPrefix(p.rest()[1:], "{"):
		name, _, closed := strings.Cut(p.rest()[2:], "}")
		plain := strings.TrimPrefix(name, "^")
		s, known := property(plain)
		if !closed || !known {
			return refuse(fmt.Sprintf("the property %.40s is not closed, or not known", p.expr[start:]))
		}
		if (c == 'P') != (plain != name) {
			s = s.not()
		}
		p.i += len(name) + 3
		return s, true, nil
	case c == 'x' && p.take("x{"):
		digits, _, _ := strings.Cut(p.rest(), "}")
		p.i = min(p.i+len(digits)+1, len(p.expr))
		return coded(digits, 16)
	case c == 'x':
		p.i++
		if digits := hex(2); digits == "" {
			return one(0)
		} else if v, _ := strconv.ParseUint(digits, 16, 8); v < utf8.RuneSelf {
			return one(rune(v))
		}
		return refuse(`bytes of a character, such as \xE9, are not supported; write \x{...} with its number`)
	case c == 'u':
		p.i++
		digits := hex(4)
		if len(digits) < 4 {
			return refuse(`\u needs four hexadecimal digits`)
		}
		return coded(digits, 16)
	case c == '0': // fewer digits
		n := 1
		for n < 3 && n < len(p.rest()) && '0' <= p.rest()[n] && p.rest()[n] <= '7' {
			n++
		}
		digits := p.rest()[:n]
		p.i += n
		return coded(digits, 8)
	case len(p.rest()) > 2 && strings.Trim(p.rest()[:3], "01234567") == "":
		p.i += 3
		return coded(p.expr[p.i-3:p.i], 8)
	case '1' <= c && c <= '9' && !inClass:
		return refuse("references to a group are not supported")
	case (c == 'N' || c == 'O') && !inClass:
		p.i++
		if c == 'O' {
			return anything, true, nil
		}
		return set{{'\n', '\n'}}.not(), true, nil
	case slices.Contains([]byte("1234567oCMcRXyYGgkKQE"), c):
		return refuse(fmt.Sprintf(`\%c is not supported`, c))
	}
	return one(p.rune())
}
