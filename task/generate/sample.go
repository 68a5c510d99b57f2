package generate

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
)

// sampler draws tokens: the temperature is applied first, then TopK, then TopP to
// the tokens left.
type sampler struct {
	temperature float64 // 0: the most probable token
	topK        int     // 0: all
	topP        float64 // 1: all
	unsaid      []int32
	candidates  []candidate
}

type candidate struct {
	id int32
	p  float64 // proportional to the probability
}

// pick draws a token from log p, in which it sets those that are never generated
// to -Inf.
func (s *sampler) pick(logp []float32, r *rand.Rand) int32 {
	for _, id := range s.unsaid {
		logp[id] = float32(math.Inf(-1))
	}
	best := 0
	for i, v := range logp {
		if v > logp[best] {
			best = i
		}
	}
	if s.temperature == 0 || !(float64(logp[best]) > math.Inf(-1)) {
		return int32(best)
	}
	// Tokens that are e^-30 times less probable than the best are never drawn: in
	// float64 they hardly change the sum.
	top, list := float64(logp[best]), s.candidates[:0]
	for i, v := range logp {
		if d := (float64(v) - top) / s.temperature; d > -30 {
			list = append(list, candidate{int32(i), math.Exp(d)})
		}
	}
	s.candidates = list
	kept := s.keep(list)
	sum := 0.0
	for _, c := range kept {
		sum += c.p
	}
	u := r.Float64() * sum
	for _, c := range kept {
		if u -= c.p; u < 0 {
			return c.id
		}
	}
	return kept[len(kept)-1].id
}

// keep applies topK and topP.
func (s *sampler) keep(list []candidate) []candidate {
	if s.topK == 0 && s.topP == 1 {
		return list
	}
	slices.SortStableFunc(list, func(a, b candidate) int { return cmp.Compare(b.p, a.p) })
	if s.topK > 0 {
		list = list[:min(s.topK, len(list))]
	}
	sum := 0.0
	for _, c := range list {
		sum += c.p
	}
	reached := 0.0
	for i, c := range list {
		if reached += c.p; reached >= s.topP*sum {
			return list[:i+1]
		}
	}
	return list
}

// stopper searches for stop strings, and withholds text that may be the beginning
// of one.
type stopper struct {
	stops []string
	held  string
}

// pass adds text and returns what can be released. If stopped is true, that is
// all text before the first stop string, which is dropped.
func (s *stopper) pass(text string) (out string, stopped bool) {
	s.held += text
	at := -1
	for _, stop := range s.stops {
		if i := strings.Index(s.held, stop); i >= 0 && (at < 0 || i < at) {
			at = i
		}
	}
	if at >= 0 {
		out, s.held = s.held[:at], ""
		return out, true
	}
	wait := 0 // the longest end of held that begins a stop string
	for _, stop := range s.stops {
		for n := min(len(stop)-1, len(s.held)); n > wait; n-- {
			if strings.HasSuffix(s.held, stop[:n]) {
				wait = n
			}
		}
	}
	out, s.held = s.held[:len(s.held)-wait], s.held[len(s.held)-wait:]
	return out, false
}

// rest returns the text that is still withheld.
func (s *stopper) rest() string {
	out := s.held
	s.held = ""
	return out
}
