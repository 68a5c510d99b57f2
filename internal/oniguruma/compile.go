package oniguruma

import (
	"fmt"
	"slices"
	"sync"
	"unicode/utf8"
)

// An inst is a step of a program. What follows it is at next.
type inst struct {
	op   op
	back bool  // reads the text backwards
	memo int32 // number of the state, for memory of failures, or noMemo
	self int32 // its own place
	next int32
	alt  int32 // of a fork the second way; of a condition and a commit the body
	full int32 // of a commit instead of next, if its body has taken a character

	class *class // of one and run
	most  int    // of a run: the maximum number of characters, or unlimited
	keeps bool   // a run does not give back what it has taken

	at       assertion
	negative bool // of a condition

	first *look // what may come next in the text where this leads to a match; nil for anything
}

type op uint8

const (
	matched   op = iota
	one          // a character of class
	run          // as many characters of class as there are
	fork         // next, or else alt
	check        // at holds
	condition    // the body matches here, or does not
	commit       // the first match of the body
)

const noMemo = -1

// look says for each byte whether the text may go on with it; the last is for
// the end of the text.
type look [257]bool

const end = 256

// at reports whether the text at byte i is among what l admits.
func (l *look) at(text []byte, i int) bool {
	if i < len(text) {
		return l[text[i]]
	}
	return l[end]
}

// A class is a set of characters that is made for asking.
type class struct {
	set   set
	ascii [utf8.RuneSelf]bool
	plane *[0x10000 / 64]uint64 // the basic multilingual plane; nil for a small set
	leads look                  // the bytes that its characters begin with
}

func (c *class) has(r rune) bool {
	switch {
	case r < utf8.RuneSelf:
		return c.ascii[r]
	case c.plane != nil && r < 0x10000:
		return c.plane[r>>6]>>(r&63)&1 != 0
	}
	return c.set.has(r)
}

// length returns the length of the character of c at byte i, or 0.
func (c *class) length(text []byte, i int) int {
	if i >= len(text) {
		return 0
	}
	if b := text[i]; b < utf8.RuneSelf {
		if c.ascii[b] {
			return 1
		}
		return 0
	}
	r, n := utf8.DecodeRune(text[i:])
	if c.has(r) {
		return n
	}
	return 0
}

// lengthBefore returns the length of the character of c that ends at byte i, or 0.
func (c *class) lengthBefore(text []byte, i int) int {
	if i == 0 {
		return 0
	}
	r, n := utf8.DecodeLastRune(text[:i])
	if c.has(r) {
		return n
	}
	return 0
}

// Time of matching and memory are proportional to these.
const (
	maxProgram = 1 << 14 // parts of an expression, with repetitions written out
	maxRanges  = 1 << 18 // of characters, in all its sets
	smallSet   = 64      // ranges
)

var wordClass = sync.OnceValue(func() *class { return newClass(word()) })

func newClass(s set) *class {
	c := &class{set: s, leads: s.leads()}
	for r := range c.ascii {
		c.ascii[r] = s.has(rune(r))
	}
	if len(s) > smallSet {
		c.plane = new([0x10000 / 64]uint64)
		for _, r := range s {
			for k := r[0]; k <= min(r[1], 0xFFFF); k++ {
				c.plane[k>>6] |= 1 << (k & 63)
			}
		}
	}
	return c
}

// A compiler writes a program from its end to its beginning, so that each step
// knows what follows it.
type compiler struct {
	prog    []inst
	states  int32
	classes map[string]*class
	looks   map[look]*look
	back    bool // inside a look-behind
	size    int  // how many nodes have been written, repetitions one by one
}

func (c *compiler) add(i inst) int32 {
	i.memo, i.self = noMemo, int32(len(c.prog))
	if c.back {
		i.back, i.first = true, nil
	} else if i.first != nil {
		if same := c.looks[*i.first]; same != nil {
			i.first = same
		} else {
			c.looks[*i.first] = i.first
		}
	}
	c.prog = append(c.prog, i)
	return int32(len(c.prog) - 1)
}

// remember makes a step that several ways lead to remember its failures.
func (c *compiler) remember(pc int32) {
	if c.prog[pc].memo == noMemo {
		c.prog[pc].memo = c.states
		c.states++
	}
}

// class returns the class of a char.
func (c *compiler) class(n *node) *class {
	if n.class == nil {
		key := fmt.Sprint(n.set)
		if c.classes[key] == nil {
			c.classes[key] = newClass(n.set)
		}
		n.class = c.classes[key]
	}
	return n.class
}

// either joins what two steps admit.
func either(a, b *look) *look {
	if a == nil || b == nil {
		return nil
	}
	l := *a
	for i := range l {
		l[i] = l[i] || b[i]
	}
	return &l
}

// emit writes n before what follows it and returns its first step. Inside a loop
// whose turns may be empty, what follows depends on whether the turn has taken a
// character: next has to be used while it has not, and full afterwards. Everywhere
// else the two are the same.
func (c *compiler) emit(n *node, next, full int32) int32 {
	if c.size++; c.size > maxProgram { // Compile reports it
		return next
	}
	switch n.kind {
	case char:
		class := c.class(n)
		return c.add(inst{op: one, class: class, next: full, first: &class.leads})
	case sequence:
		subs := n.subs
		if c.back {
			subs = slices.Clone(subs)
			slices.Reverse(subs)
		}
		begins := 0 // how many of the subs may be the first to take a character
		for begins < len(subs) && (begins == 0 || nullable(subs[begins-1])) {
			begins++
		}
		for k := len(subs) - 1; k >= 0; k-- {
			next, full = c.both(subs[k], next, full)
			if k >= begins {
				next = full
			}
		}
		return next
	case choice:
		c.remember(next)
		c.remember(full)
		way := c.emit(n.subs[len(n.subs)-1], next, full)
		for k := len(n.subs) - 2; k >= 0; k-- {
			way = c.fork(c.emit(n.subs[k], next, full), way)
		}
		return way
	case assert:
		return c.add(inst{op: check, at: n.at, next: next, first: c.prog[next].first})
	case around:
		outer := c.back
		c.back = n.behind
		body := c.body(n.subs[0])
		c.back = outer
		return c.add(inst{op: condition, alt: body, negative: n.negative, next: next, first: c.prog[next].first})
	case atomic:
		if r := n.subs[0]; next == full && isRun(r) {
			return c.repeat(r, next, full, true)
		}
		body := c.body(n.subs[0])
		return c.add(inst{op: commit, alt: body, next: next, full: full, first: c.prog[body].first})
	}
	return c.repeat(n, next, full, false)
}

// both writes n for a turn that has not taken a character yet, and for one that has.
func (c *compiler) both(n *node, next, full int32) (int32, int32) {
	if next == full {
		next = c.emit(n, full, full)
		return next, next
	}
	return c.emit(n, next, full), c.emit(n, full, full)
}

// body writes the body of a condition or a commit.
func (c *compiler) body(n *node) int32 {
	end := c.add(inst{op: matched})
	return c.emit(n, end, end)
}

func (c *compiler) fork(first, second int32) int32 {
	pc := c.add(inst{op: fork, next: first, alt: second, first: either(c.prog[first].first, c.prog[second].first)})
	c.remember(pc)
	return pc
}

// isRun reports whether n repeats characters greedily.
func isRun(n *node) bool { return n.kind == repeat && n.subs[0].kind == char && !n.lazy }

// repeat writes a repetition: the least number of turns one by one, and then those
// that may be left out.
func (c *compiler) repeat(n *node, next, full int32, keeps bool) int32 {
	sub := n.subs[0]
	c.remember(next)
	c.remember(full)
	left, optional := n.min, n.max-n.min
	after, afterFull := next, full
	switch {
	case n.max == 0:
		return next
	case n.max == n.min:
	case next == full && isRun(n) && (n.max == unlimited || !c.back):
		next = c.run(n, next, keeps)
		full, optional = next, 0
	case n.max == unlimited:
		next, full = c.loop(n, next, full)
		if optional = 0; n.min == 1 { // the loop looks after the second turn, but the first may be empty
			next, _ = c.both(sub, next, full)
			return next
		}
	}
	// A turn that takes nothing is the last, even if there were fewer than the least
	// number.
	for left += optional; left > 0; left-- {
		turn := c.emit(sub, afterFull, full)
		if next = turn; left == 1 && after != afterFull {
			next = c.emit(sub, after, full)
		}
		full = turn
		if optional > 0 {
			optional--
			next = c.option(n, next, after)
			full = c.option(n, turn, afterFull)
		}
	}
	return next
}

func (c *compiler) run(n *node, next int32, keeps bool) int32 {
	most := unlimited
	if n.max != unlimited {
		most = n.max - n.min
	}
	class, after := c.class(n.subs[0]), c.prog[next].first
	if !c.back && after != nil { // what it would give back helps nobody
		apart := true
		for b := range end {
			apart = apart && !(class.leads[b] && after[b])
		}
		keeps = keeps || apart
	}
	pc := c.add(inst{op: run, class: class, most: most, keeps: keeps, next: next, first: either(after, &class.leads)})
	c.remember(pc)
	return pc
}

// option writes a fork between a turn and what follows the repetition.
func (c *compiler) option(n *node, turn, after int32) int32 {
	if n.lazy {
		return c.fork(after, turn)
	}
	return c.fork(turn, after)
}

// loop writes a repetition without end. A turn that takes nothing is the last.
func (c *compiler) loop(n *node, next, full int32) (int32, int32) {
	sub := n.subs[0]
	again := c.add(inst{op: fork})
	c.remember(again)
	empty := full
	if !nullable(sub) {
		empty = again
	}
	turn := c.emit(sub, empty, again)
	fork := &c.prog[again]
	fork.next, fork.alt = turn, full
	if n.lazy {
		fork.next, fork.alt = full, turn
	}
	if !c.back {
		fork.first = either(c.prog[turn].first, c.prog[full].first)
	}
	if next == full {
		return again, again
	}
	return c.option(n, c.emit(sub, next, again), next), again
}

// nullable reports whether n may match without taking a character.
func nullable(n *node) bool {
	switch n.kind {
	case char:
		return false
	case repeat:
		return n.min == 0 || nullable(n.subs[0])
	case choice:
		for _, s := range n.subs {
			if nullable(s) {
				return true
			}
		}
		return false
	case sequence, atomic:
		for _, s := range n.subs {
			if !nullable(s) {
				return false
			}
		}
	}
	return true
}
