package oniguruma

import "unicode/utf8"

// A matcher searches one text.
type matcher struct {
	re       *Regexp
	text     []byte
	stack    []way
	patience int // steps that are left until failures are remembered

	// What is remembered.
	remembers bool
	blocks    []block       // of the text
	used      int           // how many blocks are in memory
	dropped   int           // how many have been left behind
	path      []place       // the places on the way to where the matcher is
	ends      []extent      // by state, where a run that keeps what it takes ended last
	found     map[place]int // where the matches of commits end
}

// A way is where to go on when the present one fails.
type way struct {
	pc     int32
	path   int32 // length of the path there
	at     int
	lowest int // a run may give back characters until here; otherwise it equals at
}

// A place is a state, which is a step that remembers, and a byte of the text.
type place struct {
	state int32
	at    int
}

type extent struct{ from, to int }

// A block holds what is known of blockSize bytes of the text: two words for each
// state, with a bit for each byte. In the first are places that failed or that the
// present way leads through; in the second those in the body of a condition or a
// commit that lead to its match.
type block []uint64

const (
	blockSize = 64
	patience  = 32       // steps for each byte of the text
	memory    = 64 << 20 // bytes of blocks, beyond which all is forgotten
	spare     = 1 << 12  // entries of stacks that are kept for the next text
)

func (m *matcher) begin(text []byte) {
	m.text, m.patience, m.remembers = text, patience*len(text)+1000, false
}

// end lets go of the text, and of memory that only a few texts need.
func (m *matcher) end() {
	m.text, m.blocks, m.ends, m.found = nil, nil, nil, nil
	if cap(m.stack) > spare {
		m.stack = nil
	}
	if cap(m.path) > spare {
		m.path = nil
	}
	m.stack, m.path = m.stack[:0], m.path[:0]
}

func (m *matcher) remember() {
	m.remembers, m.used, m.dropped = true, 0, 0
	m.blocks = make([]block, len(m.text)/blockSize+1)
	m.ends = make([]extent, m.re.states)
	m.found = map[place]int{}
}

// known returns the two words of a place, and its bit in them.
func (m *matcher) known(p place) (words []uint64, bit uint64) {
	b := &m.blocks[p.at/blockSize]
	if *b == nil {
		if m.used*m.re.states*16 > memory || len(m.found) > memory/64 {
			clear(m.blocks)
			clear(m.found)
			m.used = 0
		}
		*b = make(block, 2*m.re.states)
		m.used++
	}
	return (*b)[2*p.state:][:2], 1 << (p.at % blockSize)
}

// after returns the byte behind the character at byte i.
func (m *matcher) after(i int) int {
	for i++; i < len(m.text) && !utf8.RuneStart(m.text[i]); i++ {
	}
	return i
}

// before returns the byte where the character before byte i begins.
func (m *matcher) before(i int) int {
	for i--; i > 0 && !utf8.RuneStart(m.text[i]); i-- {
	}
	return i
}

// all calls yield for each match until it returns false.
func (m *matcher) all(yield func(from, to int) bool) {
	last := -1
	for at := 0; at <= len(m.text); {
		from, to := m.search(at)
		if from < 0 {
			break
		}
		if from == to && from == last { // where a match ends, an empty one does not follow
			at = m.after(from)
			continue
		}
		if !yield(from, to) {
			break
		}
		at, last = to, to
	}
}

// search returns the first match from byte at on; from is -1 when there is none.
func (m *matcher) search(at int) (from, to int) {
	first := m.re.prog[m.re.start].first
	for ; at <= len(m.text); at = m.after(at) {
		if first != nil && !first.at(m.text, at) {
			continue
		}
		to := m.run(m.re.start, at)
		if to < 0 {
			continue
		}
		m.stack = m.stack[:0]
		for _, p := range m.path { // the next match may begin with the end of this one
			words, bit := m.known(p)
			words[0] &^= bit
		}
		m.path = m.path[:0]
		for m.remembers && m.dropped < at/blockSize {
			if m.blocks[m.dropped] != nil {
				m.blocks[m.dropped] = nil
				m.used--
			}
			m.dropped++
		}
		return at, to
	}
	return -1, -1
}

// body runs the body of a condition or a commit, and gives up its other ways.
func (m *matcher) body(i *inst, at int) (to int) {
	stack, path := len(m.stack), len(m.path)
	to = m.run(i.alt, at)
	m.stack = m.stack[:stack]
	for _, p := range m.path[path:] {
		words, bit := m.known(p)
		words[0] &^= bit
		words[1] |= bit
		if i.op == commit {
			m.found[p] = to
		}
	}
	m.path = m.path[:path]
	return to
}

// run follows the program from step pc and byte at to its first match and returns
// where that ends, or -1.
func (m *matcher) run(pc int32, at int) int {
	text, prog := m.text, m.re.prog
	stack, path := len(m.stack), len(m.path)
	for {
		i := &prog[pc]
		m.patience--
		if m.remembers && i.memo != noMemo {
			p := place{i.memo, at}
			words, bit := m.known(p)
			switch {
			case words[1]&bit != 0:
				return m.found[p]
			case words[0]&bit != 0:
				goto fail
			}
			words[0] |= bit
			m.path = append(m.path, p)
		} else if m.patience < 0 && !m.remembers {
			m.remember()
		}
		switch i.op {
		case matched:
			return at
		case one:
			n := 0
			if i.back {
				n = -i.class.lengthBefore(text, at)
			} else {
				n = i.class.length(text, at)
			}
			if n == 0 {
				goto fail
			}
			at += n
			pc = i.next
		case run:
			pc = i.next
			switch {
			case i.back:
				if n := i.class.lengthBefore(text, at); n > 0 {
					m.push(i.next, at, at)
					at -= n
					pc = i.self
				}
			case m.remembers && i.keeps:
				at = m.longest(i, at)
			case m.remembers && i.most == unlimited:
				if n := i.class.length(text, at); n > 0 {
					m.push(i.next, at, at)
					at += n
					pc = i.self
				}
			default:
				lowest := at
				if at = m.extend(i, at, len(text)); at > lowest && !i.keeps {
					m.push(i.next, at, lowest)
				}
			}
		case fork:
			if f := prog[i.next].first; f != nil && !f.at(text, at) {
				pc = i.alt
				continue
			}
			pc = i.next
			if f := prog[i.alt].first; f == nil || f.at(text, at) {
				m.push(i.alt, at, at)
			}
		case check:
			if !i.at.holds(text, at) {
				goto fail
			}
			pc = i.next
		case condition:
			if (m.body(i, at) >= 0) == i.negative {
				goto fail
			}
			pc = i.next
		case commit:
			to := m.body(i, at)
			if to < 0 {
				goto fail
			}
			if pc = i.full; to == at {
				pc = i.next
			}
			at = to
		}
		continue
	fail:
		for {
			if len(m.stack) == stack {
				m.path = m.path[:path]
				return -1
			}
			w := &m.stack[len(m.stack)-1]
			if pc = w.pc; w.at > w.lowest {
				m.patience--
				w.at = m.before(w.at)
			}
			if at = w.at; at == w.lowest {
				m.stack = m.stack[:len(m.stack)-1]
			}
			if f := prog[pc].first; f == nil || f.at(text, at) {
				m.path = m.path[:w.path]
				break
			}
		}
	}
}

func (m *matcher) push(pc int32, at, lowest int) {
	m.stack = append(m.stack, way{pc, int32(len(m.path)), at, lowest})
}

// longest returns how far a run that keeps what it takes goes from byte at on. It
// reads no character again that it has read last.
func (m *matcher) longest(i *inst, at int) int {
	e := &m.ends[i.memo]
	switch {
	case i.most != unlimited:
		return m.extend(i, at, len(m.text))
	case at < e.from:
		if to := m.extend(i, at, e.from); to < e.from {
			*e = extent{at, to}
		}
		e.from = at
	case at >= e.to:
		*e = extent{at, m.extend(i, at, len(m.text))}
	}
	return e.to
}

// extend returns how far a run goes from byte at on, at most to byte stop.
func (m *matcher) extend(i *inst, at, stop int) int {
	text, class := m.text[:stop], i.class
	from := at
	for left := i.most; left != 0 && at < len(text); left-- {
		if b := text[at]; b < utf8.RuneSelf {
			if !class.ascii[b] {
				break
			}
			at++
			continue
		}
		r, n := utf8.DecodeRune(text[at:])
		if !class.has(r) {
			break
		}
		at += n
	}
	m.patience -= at - from
	return at
}

// holds reports whether a is true at byte i.
func (a assertion) holds(text []byte, i int) bool {
	switch a {
	case lineBegin:
		return i == 0 || i < len(text) && text[i-1] == '\n'
	case lineEnd:
		return i == len(text) || text[i] == '\n'
	case textBegin:
		return i == 0
	case textEnd:
		return i == len(text)
	case lastLineEnd:
		return i == len(text) || i == len(text)-1 && text[i] == '\n'
	}
	boundary := (wordClass().length(text, i) > 0) != (wordClass().lengthBefore(text, i) > 0)
	return boundary == (a == wordBoundary)
}
