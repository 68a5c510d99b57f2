package translate

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/tensor"
)

// toy is a network over few tokens: 0 and 2 never come out, 3 ends, 1 and 4 to 6 are words.
const (
	toyTokens = 7
	toyLimit  = 4
	toyEnd    = 3
)

func toyNetwork(t *testing.T, set func(c *Config)) *network {
	t.Helper()
	cfg := Defaults()
	cfg.Embedding, cfg.Hidden = 6, 8
	set(&cfg)
	n, err := newNetwork(&cfg, toyTokens, toyTokens)
	if err != nil {
		t.Fatal(err)
	}
	slab := tensor.Pack(tensor.CPU(), n, 3)
	for _, p := range slab.Params { // livelier than at the beginning of training
		w := p.Read()
		for i := range w {
			w[i] *= 4
		}
		p.Write(w)
	}
	return n
}

// beam finds the best translations of the sources, all together.
func beam(t *testing.T, n *network, sources [][]int32, o *SearchOptions, best int) [][]hypothesis {
	t.Helper()
	tape := tensor.NewTape(tensor.CPU(), tensor.Infer)
	d := &decoding{n: n, tape: tape, e: n.encodeAll(tape, sources, nil), beam: o.Beam, begin: 2, looks: true}
	for _, s := range sources {
		d.all = append(d.all, newSearch(o, best, toyLimit, len(s), toyEnd, []int32{0, 2}))
	}
	if err := d.run(context.Background()); err != nil {
		t.Fatal(err)
	}
	var found [][]hypothesis
	for _, s := range d.all {
		found = append(found, s.finished)
	}
	return found
}

// enumerate scores every translation there is, by passes over whole targets.
func enumerate(n *network, source []int32, o *SearchOptions) []hypothesis {
	var all []hypothesis
	var visit func(tokens []int32)
	visit = func(tokens []int32) {
		if !repeats(tokens, o.NGramBlock) {
			all = append(all, whole(n, source, append(slices.Clone(tokens), toyEnd), o))
			if len(tokens) < toyLimit-1 {
				for _, id := range []int32{1, 4, 5, 6} {
					visit(append(slices.Clone(tokens), id))
				}
			}
		}
	}
	visit(nil)
	slices.SortFunc(all, func(a, b hypothesis) int { return cmp.Compare(b.score, a.score) })
	return all
}

// repeats says whether a run of n tokens stands twice in tokens.
func repeats(tokens []int32, n int) bool {
	seen := map[string]bool{}
	for i := 0; n > 0 && i+n <= len(tokens); i++ {
		key := fmt.Sprint(tokens[i : i+n])
		if seen[key] {
			return true
		}
		seen[key] = true
	}
	return false
}

// whole scores one translation in one pass.
func whole(n *network, source, tokens []int32, o *SearchOptions) hypothesis {
	tape := tensor.NewTape(tensor.CPU(), tensor.Infer)
	S, T := len(source), len(tokens)
	m, state, _ := n.encode(tape.IDs(source, []int32{int32(S)}, 1, S), nil)
	out, weights, _ := n.decode(tape.IDs(append([]int32{2}, tokens[:T-1]...), nil, 1, T), m, state)
	logProbs, looks := tensor.LogSoftmax(n.Output.Forward(out)).Data(), weights.Data()
	var h hypothesis
	coverage := make([]float64, S)
	for i, id := range tokens {
		h.last = &node{h.last, id, i + 1, nil}
		h.logProb += float64(logProbs[i*toyTokens+int(id)])
		for s := range S {
			coverage[s] += float64(looks[i*S+s])
		}
	}
	h.score = h.logProb / math.Pow((5+float64(T))/6, o.LengthPenalty)
	for _, c := range coverage {
		h.score += o.CoveragePenalty * math.Log(math.Min(c, 1))
	}
	return h
}

// TestBeamIsExhaustive lets the beam be as wide as there are translations: it must
// find all of them, with their scores, in order.
func TestBeamIsExhaustive(t *testing.T) {
	sources := [][]int32{{4, 5, 3}, {6, 3}, {5, 5, 1, 4, 6, 3}, {3}}
	for name, set := range map[string]func(c *Config){
		"general":           func(c *Config) {},
		"feeding, coverage": func(c *Config) { c.InputFeeding, c.Coverage, c.Attention = true, true, "additive" },
		"no bridge, dot":    func(c *Config) { c.Bridge, c.Attention, c.Layers, c.Cell = "zero", "dot", 2, "gru" },
	} {
		n := toyNetwork(t, set)
		for _, o := range []*SearchOptions{
			{Beam: 100, LengthPenalty: 1},
			{Beam: 100},
			{Beam: 100, LengthPenalty: 0.6, CoveragePenalty: 0.3},
			{Beam: 100, LengthPenalty: 2, NGramBlock: 1},
			{Beam: 100, LengthPenalty: 1, NGramBlock: 2},
		} {
			t.Run(fmt.Sprintf("%s/%+v", name, *o), func(t *testing.T) {
				for i, got := range beam(t, n, sources, o, 100) {
					want := enumerate(n, sources[i], o)
					if len(got) != len(want) {
						t.Fatalf("source %d: %d translations, there are %d", i, len(got), len(want))
					}
					for k := range want {
						if math.Abs(got[k].score-want[k].score) > 1e-4 {
							t.Fatalf("source %d: translation %d is %v with score %v, want %v with %v",
								i, k, got[k].last.tokens(), got[k].score, want[k].last.tokens(), want[k].score)
						}
					}
					if o.NGramBlock == 0 && len(want) != 1+4+16+64 {
						t.Errorf("%d translations were enumerated", len(want))
					}
				}
			})
		}
	}
}

// TestEarlyEnd lets a wide beam stop as soon as nothing better can come: the best
// few are the same as those of all.
func TestEarlyEnd(t *testing.T) {
	n := toyNetwork(t, func(c *Config) {})
	source := []int32{4, 5, 6, 3}
	o := &SearchOptions{Beam: 100, LengthPenalty: 1}
	want := enumerate(n, source, o)
	for _, best := range []int{1, 3} {
		got := beam(t, n, [][]int32{source}, o, best)[0]
		for k := range best {
			if !slices.Equal(got[k].last.tokens(), want[k].last.tokens()) {
				t.Errorf("translation %d of %d is %v, want %v", k, best, got[k].last.tokens(), want[k].last.tokens())
			}
		}
	}
}

// TestGreedy follows the likeliest token from step to step.
func TestGreedy(t *testing.T) {
	n := toyNetwork(t, func(c *Config) { c.InputFeeding = true })
	for _, source := range [][]int32{{4, 5, 3}, {6, 6, 6, 3}, {1, 3}} {
		got := beam(t, n, [][]int32{source}, &SearchOptions{Beam: 1}, 1)[0][0]
		var want []int32
		for len(want) == 0 || want[len(want)-1] != toyEnd {
			best := math.Inf(-1)
			var next int32
			for _, id := range []int32{1, 3, 4, 5, 6} {
				if len(want) == toyLimit-1 && id != toyEnd {
					continue
				}
				if p := whole(n, source, append(slices.Clone(want), id), &SearchOptions{}).logProb; p > best {
					best, next = p, id
				}
			}
			want = append(want, next)
		}
		if !slices.Equal(got.last.tokens(), want) {
			t.Errorf("source %v: %v, want %v", source, got.last.tokens(), want)
		}
	}
}
