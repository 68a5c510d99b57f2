package memory

import (
	"math"
	"math/rand/v2"
)

// sequence is a sequence that is being made: inputs [steps,inputs], initially
// zeros, and targets.
type sequence struct {
	*rand.Rand
	x      []float32
	length int     // true steps, if sequences differ in length
	y      float32 // adding: the sum
	next   []int32 // [steps] the target symbol of each step
	legal  []uint8 // [steps] reber: the symbols that may follow, bit by bit
}

// reset clears the sequence.
func (s *sequence) reset() {
	clear(s.x)
	clear(s.legal)
	for t := range s.next {
		s.next[t] = ignored
	}
}

// mark sets input i of step t to 1.
func (s *sequence) mark(t, inputs, i int) { s.x[t*inputs+i] = 1 }

// adding is the adding problem (Hochreiter and Schmidhuber 1997, with the fixed
// length and the uniform numbers in [0,1) of Le et al. 2015, arXiv:1504.00941).
// Each step has a number and a mark; one step of each half is marked, and the
// target is the sum of the two numbers. The constant output 1 has the variance of
// the sum, 1/6, as mean squared error (published tables have 0.167 or 0.1767).
var adding = problem{
	length: 100, least: 2, inputs: 2, outputs: 1, last: true,
	steps:    func(length int) int { return length },
	baseline: func(int) float64 { return 1. / 6 },
	draw: func(s *sequence, length int) {
		for t := range length {
			s.x[2*t] = s.Float32()
		}
		half := length / 2
		first, second := s.IntN(half), half+s.IntN(length-half)
		s.mark(first, 2, 1)
		s.mark(second, 2, 1)
		s.y = s.x[2*first] + s.x[2*second]
	},
	score: func(out []float32, b *batch, row, _ int) score {
		d := float64(out[0]) - float64(b.y[row])
		s := score{err: d * d, errs: 1, rights: 1}
		if math.Abs(d) < 0.04 {
			s.right = 1
		}
		return s
	},
	solved: func(s Score, _ int) bool { return s.Error < 0.01 },
	enough: func(s Score, _ int) bool { return s.Error < 0.005 },
}

// The copy problem (Hochreiter and Schmidhuber 1997; as Arjovsky et al. 2016,
// arXiv:1511.06464): ten of eight symbols, blanks, a go sign, and the ten symbols
// are wanted in the ten steps from there on; before, blanks. Without memory the
// best is to answer blanks, then each symbol with 1/8: 10 ln 8 nats in
// length + 20 steps.
const (
	copied  = 10 // symbols to be remembered
	symbols = 8
	blank   = symbols
	goSign  = symbols + 1
)

// byChance returns the error of copying without memory.
func byChance(length int) float64 { return copied * math.Log(symbols) / float64(length+2*copied) }

var copying = problem{
	length: 100, least: 1, inputs: symbols + 2, outputs: symbols + 1,
	steps:    func(length int) int { return length + 2*copied },
	baseline: byChance,
	draw: func(s *sequence, length int) {
		steps := length + 2*copied
		for t := range steps {
			in := blank
			switch {
			case t < copied:
				in = s.IntN(symbols)
				s.next[steps-copied+t] = int32(in)
			case t == steps-copied-1:
				in = goSign
			}
			if t < steps-copied {
				s.next[t] = blank
			}
			s.mark(t, symbols+2, in)
		}
	},
	score: func(out []float32, b *batch, row, length int) score {
		steps := length + 2*copied
		s := score{errs: float64(steps), rights: copied}
		for t := range steps {
			want, best := b.next[row*steps+t], 0
			o := out[t*(symbols+1):][:symbols+1]
			most := float64(o[0])
			for i, v := range o {
				if v > o[best] {
					best = i
				}
				most = math.Max(most, float64(v))
			}
			sum := 0.0
			for _, v := range o {
				sum += math.Exp(float64(v) - most)
			}
			s.err += most + math.Log(sum) - float64(o[want])
			if t >= steps-copied && best == int(want) {
				s.right++
			}
		}
		return s
	},
	solved: func(s Score, length int) bool { return copiedWell(s, length, 0.1) },
	enough: func(s Score, length int) bool { return copiedWell(s, length, 0.05) },
}

// copiedWell reports whether 99 % of the symbols are right and the error is below
// a share of the baseline's.
func copiedWell(s Score, length int, share float64) bool {
	return s.Right >= 0.99 && s.Error < share*byChance(length)
}

// The embedded Reber grammar (Cleeremans et al. 1989; Hochreiter and
// Schmidhuber 1997). A string is B, T or P, a string of the Reber grammar, the
// same T or P again, E; after each symbol the network predicts the next. A string is
// right if at each step every symbol that may follow gets more than any that may
// not, which for the last but one needs the second.
const (
	symB = iota
	symT
	symP
	symS
	symX
	symV
	symE
	reberSymbols
)

// reberMoves is the inner grammar: from each state two symbols and where they lead.
var reberMoves = [][2]struct{ symbol, to int }{
	0: {{symT, 1}, {symP, 2}},
	1: {{symS, 1}, {symX, 3}},
	2: {{symT, 2}, {symV, 4}},
	3: {{symX, 2}, {symS, reberEnd}},
	4: {{symP, 3}, {symV, reberEnd}},
}

const reberEnd = 5

var reber = problem{
	length: 50, least: 12, inputs: reberSymbols, outputs: reberSymbols, ragged: true,
	steps:    func(length int) int { return length - 1 }, // after the last symbol nothing is asked
	baseline: func(int) float64 { return 0.5 },           // the last but one by chance
	draw: func(s *sequence, length int) {
		for !s.reberString(length) {
			s.reset()
		}
	},
	score: func(out []float32, b *batch, row, length int) score {
		s := score{errs: 1, rights: 1, right: 1}
		steps := length - 1
		for t := range int(b.lengths[row]) {
			if !ranked(out[t*reberSymbols:][:reberSymbols], b.legal[row*steps+t], b.margin) {
				s.right, s.err = 0, 1
			}
		}
		return s
	},
	solved: func(s Score, _ int) bool { return s.Error == 0 },
	enough: func(s Score, _ int) bool { return s.Error == 0 },
}

// ranked reports whether every legal symbol is above every other by a margin, in
// nats.
func ranked(out []float32, legal uint8, margin float64) bool {
	least, most := math.Inf(1), math.Inf(-1)
	for i, v := range out {
		if legal>>i&1 == 1 {
			least = math.Min(least, float64(v))
		} else {
			most = math.Max(most, float64(v))
		}
	}
	return least > most+margin
}

// reberString draws one string; it returns false if the string is too long.
func (s *sequence) reberString(length int) bool {
	outer := symT + s.IntN(2)
	n := 0
	at := symB // the symbol being read
	add := func(next int, legal uint8) bool {
		if n == length-1 {
			return false
		}
		s.mark(n, reberSymbols, at)
		s.next[n], s.legal[n] = int32(next), legal
		at = next
		n++
		return true
	}
	if !add(outer, 1<<symT|1<<symP) || !add(symB, 1<<symB) {
		return false
	}
	for state := 0; state != reberEnd; {
		moves := reberMoves[state]
		m := moves[s.IntN(2)]
		if !add(m.symbol, 1<<moves[0].symbol|1<<moves[1].symbol) {
			return false
		}
		state = m.to
	}
	ok := add(symE, 1<<symE) && add(outer, 1<<outer) && add(symE, 1<<symE)
	s.length = n
	return ok
}
