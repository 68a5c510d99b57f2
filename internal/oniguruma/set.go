package oniguruma

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// A set is ranges of characters, from first to last, ascending and apart.
type set [][2]rune

// join returns the union of sets.
func join(sets ...set) set {
	all := slices.Concat(sets...)
	slices.SortFunc(all, func(a, b [2]rune) int { return cmp.Compare(a[0], b[0]) })
	var s set
	for _, r := range all {
		if n := len(s); n > 0 && r[0] <= s[n-1][1]+1 {
			s[n-1][1] = max(s[n-1][1], r[1])
		} else {
			s = append(s, r)
		}
	}
	return s
}

// not returns the other characters.
func (s set) not() set {
	var out set
	next := rune(0)
	for _, r := range s {
		if r[0] > next {
			out = append(out, [2]rune{next, r[0] - 1})
		}
		next = r[1] + 1
	}
	if next <= unicode.MaxRune {
		out = append(out, [2]rune{next, unicode.MaxRune})
	}
	return out
}

// and returns the intersection of two sets.
func (s set) and(t set) set { return join(s.not(), t.not()).not() }

// folded adds the other cases of every character.
func (s set) folded() set {
	more := set{}
	if len(s) == 1 && s[0][0] == s[0][1] {
		r := s[0][0]
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			more = append(more, [2]rune{next, next})
		}
		return join(s, more)
	}
	for _, orbit := range orbits() {
		if slices.ContainsFunc(orbit, s.has) {
			for _, r := range orbit {
				more = append(more, [2]rune{r, r})
			}
		}
	}
	return join(s, more)
}

func (s set) has(r rune) bool {
	_, found := slices.BinarySearchFunc(s, r, func(a [2]rune, r rune) int {
		switch {
		case a[1] < r:
			return -1
		case a[0] > r:
			return 1
		}
		return 0
	})
	return found
}

// leads returns the bytes that characters of s begin with. They grow with the
// characters.
func (s set) leads() (bytes look) {
	for _, r := range s {
		for b := lead(r[0]); ; b++ {
			bytes[b] = true
			if b == lead(r[1]) {
				break
			}
		}
	}
	return bytes
}

func lead(r rune) byte {
	if 0xD800 <= r && r <= 0xDFFF { // no text has these; their neighbours begin so
		return 0xED
	}
	var b [utf8.UTFMax]byte
	utf8.EncodeRune(b[:], r)
	return b[0]
}

// orbits are the characters that differ in case only.
var orbits = sync.OnceValue(func() [][]rune {
	var all [][]rune
	for r := rune(0); r <= unicode.MaxRune; r++ {
		orbit := []rune{r}
		for next := unicode.SimpleFold(r); next > r; next = unicode.SimpleFold(next) {
			orbit = append(orbit, next)
		}
		if last := orbit[len(orbit)-1]; last > r && unicode.SimpleFold(last) == r { // r is the first of them
			all = append(all, orbit)
		}
	}
	return all
})

// setOf joins the characters of Unicode's tables.
func setOf(tables ...*unicode.RangeTable) set {
	var s set
	add := func(lo, hi, stride rune) {
		if stride == 1 {
			s = append(s, [2]rune{lo, hi})
			return
		}
		for ; lo <= hi; lo += stride {
			s = append(s, [2]rune{lo, lo})
		}
	}
	for _, t := range tables {
		for _, r := range t.R16 {
			add(rune(r.Lo), rune(r.Hi), rune(r.Stride))
		}
		for _, r := range t.R32 {
			add(rune(r.Lo), rune(r.Hi), rune(r.Stride))
		}
	}
	return join(s)
}

var anything = set{{0, unicode.MaxRune}}

// posix are the classes in double brackets, such as [[:alpha:]], which are those
// of Unicode.
var posix = sync.OnceValue(func() map[string]set {
	alpha := []*unicode.RangeTable{unicode.L, unicode.Nl, unicode.Other_Alphabetic}
	graph := []*unicode.RangeTable{unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Cf, unicode.Co}
	return map[string]set{
		"alpha":  setOf(alpha...),
		"alnum":  setOf(append(alpha, unicode.Nd)...),
		"ascii":  {{0, unicode.MaxASCII}},
		"blank":  join(setOf(unicode.Zs), set{{'\t', '\t'}}),
		"cntrl":  setOf(unicode.Cc),
		"digit":  setOf(unicode.Nd),
		"graph":  setOf(graph...),
		"lower":  setOf(unicode.Ll, unicode.Other_Lowercase),
		"print":  setOf(append(graph, unicode.Zs)...),
		"punct":  setOf(unicode.P, unicode.S),
		"space":  setOf(unicode.White_Space),
		"upper":  setOf(unicode.Lu, unicode.Other_Uppercase),
		"xdigit": {{'0', '9'}, {'A', 'F'}, {'a', 'f'}},
		"word":   setOf(append(alpha, unicode.M, unicode.Nd, unicode.Pc)...),
	}
})

// word is the characters of words outside brackets: Oniguruma has a table of its
// own for Latin-1, in which these digits and fractions are of words.
var word = sync.OnceValue(func() set { return join(posix()["word"], set{{'²', '³'}, {'¹', '¹'}, {'¼', '¾'}}) })

// properties are the tables of Unicode by their plain names.
var properties = sync.OnceValue(func() map[string]*unicode.RangeTable {
	all := map[string]*unicode.RangeTable{}
	for _, tables := range []map[string]*unicode.RangeTable{unicode.Properties, unicode.Scripts, unicode.Categories} {
		for name, table := range tables {
			all[plainName(name)] = table
		}
	}
	for name, category := range unicode.CategoryAliases {
		if table := unicode.Categories[category]; table != nil {
			all[plainName(name)] = table
		}
	}
	return all
})

// plainName drops what names of properties may differ in.
func plainName(name string) string {
	return strings.ToLower(strings.NewReplacer(" ", "", "-", "", "_", "").Replace(name))
}

// property returns the characters of \p{name}.
func property(name string) (set, bool) {
	name = plainName(name)
	if name == "any" {
		return anything, true
	}
	if s, ok := posix()[name]; ok && name != "punct" { // which is without symbols here
		return s, true
	}
	table, ok := properties()[name]
	if !ok {
		return nil, false
	}
	return setOf(table), true
}
