// Package oniguruma finds the matches of regular expressions that are written for
// the Oniguruma library, which Hugging Face's tokenizers use, with that library's
// results, but in time that is proportional to the text.
//
// It backtracks, and so the first alternative that leads to a match is taken, not
// the longest. As soon as a text takes more steps than it has bytes many times over,
// failures are remembered by step and place, and none is repeated (as in Fujinami
// and Hasuo, Efficient Matching with Memoization for Regexes with Look-around and
// Atomic Grouping, ESOP 2024).
//
// Classes and boundaries of words are Unicode's. Supported are: alternatives, groups
// (also named, atomic, or with the options i, m and x), greedy, lazy and possessive
// quantifiers up to 1000 times, ^ $ \A \z \Z \b \B, look-ahead and look-behind of any
// length, classes with ranges, complements and intersections, \p{Property} (of
// categories, scripts and the tables of package unicode), \R \N \O. References to
// groups, which no algorithm matches in linear time, and the rest (calls, conditions,
// absence, \G, \K, \X, \y; atomic groups inside look-behinds) are errors. The option
// i does not match one character with several, such as ß with ss.
package oniguruma

import (
	"fmt"
	"iter"
	"sync"
)

// A Regexp is a compiled expression. Any number of goroutines may use it.
type Regexp struct {
	prog     []inst
	start    int32
	states   int // that remember failures
	matchers sync.Pool
}

// Compile reads an expression. An error says at which byte of it, from 1, what is
// wrong or not supported.
func Compile(expr string) (*Regexp, error) {
	root, err := parse(expr)
	if err != nil {
		return nil, err
	}
	c := &compiler{classes: map[string]*class{}, looks: map[look]*look{}}
	start := c.body(root)
	if c.size > maxProgram {
		return nil, fmt.Errorf("it is too large: with its repetitions written out it has more than %d parts", maxProgram)
	}
	re := &Regexp{prog: c.prog, start: start, states: int(c.states)}
	re.matchers.New = func() any { return &matcher{re: re} }
	return re, nil
}

// All returns the matches in text, which must be UTF-8, as the bytes [from, to) in
// ascending order. None overlaps another; an empty match does not stand at the end
// of the match before it.
func (re *Regexp) All(text []byte) iter.Seq2[int, int] {
	return func(yield func(from, to int) bool) {
		m := re.matchers.Get().(*matcher)
		m.begin(text)
		m.all(yield)
		m.end()
		re.matchers.Put(m)
	}
}
