package tag_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/task/tag"
	"github.com/carousel-ml/carousel/tensor"
)

// crfCase is a CRF with its parameters and the scores of one row.
type crfCase struct {
	crf        *nn.CRF
	k, n       int
	trans      []float32
	start, end []float32
	scores     []float32
	forbidden  func(from, to int) bool
}

func newCRFCase(t *testing.T, r *rand.Rand, k, n int, forbidden func(from, to int) bool) *crfCase {
	t.Helper()
	c := &crfCase{k: k, n: n, forbidden: forbidden}
	var o *nn.CRFOptions
	if forbidden != nil {
		o = &nn.CRFOptions{Forbidden: forbidden}
	}
	c.crf = nn.NewCRF(k, o)
	slab := tensor.Pack(tensor.CPU(), c.crf, 1)
	for _, p := range slab.Params {
		w := make([]float32, p.Len())
		for i := range w {
			w[i] = float32(r.NormFloat64())
		}
		p.Write(w)
	}
	c.trans, c.start, c.end = c.crf.Transitions.Read(), c.crf.Start.Read(), c.crf.End.Read()
	for range n * k {
		c.scores = append(c.scores, float32(r.NormFloat64()*2))
	}
	return c
}

// score is the definition.
func (c *crfCase) score(y []int32) float64 {
	sum := 0.0
	from := -1
	for t, j := range y {
		if c.forbidden != nil && c.forbidden(from, int(j)) {
			return math.Inf(-1)
		}
		if t == 0 {
			sum += float64(c.start[j])
		} else {
			sum += float64(c.trans[from*c.k+int(j)])
		}
		sum += float64(c.scores[t*c.k+int(j)])
		from = int(j)
	}
	if c.forbidden != nil && c.forbidden(from, -1) {
		return math.Inf(-1)
	}
	return sum + float64(c.end[from])
}

// all is every sequence that is allowed, best first, with the logarithm of their sum.
func (c *crfCase) all() (list []tag.Decoded, logZ float64) {
	y := make([]int32, c.n)
	z := 0.0
	for at := 0; at < c.n; {
		if s := c.score(y); !math.IsInf(s, -1) {
			list = append(list, tag.Decoded{Tags: slices.Clone(y), Score: s})
			z += math.Exp(s)
		}
		for at = 0; at < c.n; at++ {
			if y[at]++; int(y[at]) < c.k {
				break
			}
			y[at] = 0
		}
	}
	slices.SortFunc(list, func(a, b tag.Decoded) int {
		if a.Score > b.Score {
			return -1
		}
		return 1
	})
	return list, math.Log(z)
}

func agree(got, want float64) bool { return math.Abs(got-want) <= 1e-5*(1+math.Abs(want)) }

// even tags may not follow odd ones, tag 0 does not begin and tag 1 does not end.
func someForbidden(from, to int) bool {
	return from == -1 && to == 0 || to == -1 && from == 1 || from >= 0 && to >= 0 && from%2 == 1 && to%2 == 0
}

func TestDecoderAgainstEnumeration(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, forbidden := range []func(int, int) bool{nil, someForbidden} {
		for _, size := range [][2]int{{1, 1}, {3, 1}, {2, 6}, {4, 5}, {7, 3}} {
			if forbidden != nil && size[0] < 3 {
				continue
			}
			c := newCRFCase(t, r, size[0], size[1], forbidden)
			want, logZ := c.all()
			chain := tag.NewDecoder(c.crf.Read())
			if got := chain.Viterbi(c.scores); !slices.Equal(got, want[0].Tags) {
				t.Errorf("K=%d n=%d: Viterbi gives %v, the best of all is %v", c.k, c.n, got, want[0].Tags)
			}
			got := chain.NBest(c.scores, 10)
			if len(got) != min(10, len(want)) {
				t.Fatalf("K=%d n=%d: %d sequences, want %d", c.k, c.n, len(got), min(10, len(want)))
			}
			for i, d := range got {
				if !slices.Equal(d.Tags, want[i].Tags) || !agree(d.Score, want[i].Score) || !agree(d.LogProb, want[i].Score-logZ) || !agree(chain.Score(c.scores, d.Tags), want[i].Score) {
					t.Errorf("K=%d n=%d: sequence %d is %v, want %v of log probability %v", c.k, c.n, i, d, want[i], want[i].Score-logZ)
				}
			}
			c.checkMarginals(t, chain.Marginals(c.scores), want, logZ)
			c.checkLoss(t, want[len(want)/2], logZ)
		}
	}
}

// checkMarginals compares the probabilities of single tags and of pairs.
func (c *crfCase) checkMarginals(t *testing.T, m *tag.Marginals, all []tag.Decoded, logZ float64) {
	t.Helper()
	if !agree(m.LogZ, logZ) {
		t.Errorf("log Z is %v, want %v", m.LogZ, logZ)
	}
	for at := range c.n {
		for j := range int32(c.k) {
			one, pair, next := 0.0, 0.0, (j+1)%int32(c.k)
			for _, d := range all {
				if d.Tags[at] != j {
					continue
				}
				one += math.Exp(d.Score - logZ)
				if at+1 < c.n && d.Tags[at+1] == next {
					pair += math.Exp(d.Score - logZ)
				}
			}
			if got := m.Prob(at, j); !agree(got, one) {
				t.Errorf("P(tag %d at %d) is %v, want %v", j, at, got, one)
			}
			if at+1 < c.n && !agree(m.Prob(at, j, next), pair) {
				t.Errorf("P(tags %d, %d at %d) is %v, want %v", j, next, at, m.Prob(at, j, next), pair)
			}
		}
	}
}

// checkLoss holds the loss that trains to the probabilities that decode.
func (c *crfCase) checkLoss(t *testing.T, y tag.Decoded, logZ float64) {
	t.Helper()
	tape := tensor.NewTape(tensor.CPU(), tensor.Train)
	loss := c.crf.Loss(tape.Input(c.scores, 1, c.n, c.k), tape.IDs(y.Tags, nil, 1, c.n))
	if want := (logZ - y.Score) / float64(c.n); !agree(float64(loss.Item()), want) {
		t.Errorf("loss of %v is %v, want %v", y.Tags, loss.Item(), want)
	}
	loss.Backward()
}

func TestDecoderOfNothingAndOfNonsense(t *testing.T) {
	chain := tag.NewDecoder((*nn.CRFOptions)(nil).Costs(3))
	if chain.Viterbi(nil) != nil || chain.NBest(nil, 5) != nil || chain.NBest(make([]float32, 6), 0) != nil {
		t.Error("no step, or none wanted, must give no sequence")
	}
	nan := float32(math.NaN())
	if got := chain.Viterbi([]float32{nan, nan, nan, 1, 2, 3}); len(got) != 2 {
		t.Errorf("scores that are no numbers give %v", got)
	}
	none := tag.NewDecoder((&nn.CRFOptions{Forbidden: func(int, int) bool { return true }}).Costs(2))
	if got := none.Viterbi(make([]float32, 6)); len(got) != 3 {
		t.Errorf("with everything forbidden: %v", got)
	}
}

// A long row's scores add up without loss, and the chain without a CRF takes each step's best.
func TestDecoderOfALongRow(t *testing.T) {
	const n, k = 5000, 4
	r := rand.New(rand.NewPCG(3, 4))
	scores := make([]float32, n*k)
	want := make([]int32, n)
	for i := range scores {
		scores[i] = float32(r.NormFloat64()) * 5
		if at := i / k; scores[i] > scores[at*k+int(want[at])] {
			want[at] = int32(i % k)
		}
	}
	chain := tag.NewDecoder((*nn.CRFOptions)(nil).Costs(k))
	if !slices.Equal(chain.Viterbi(scores), want) {
		t.Error("Viterbi without transitions differs from each step's best tag")
	}
	for at, m := 0, chain.Marginals(scores); at < n; at += 499 {
		z := 0.0
		for j := range k {
			z += math.Exp(float64(scores[at*k+j]))
		}
		if got, p := m.Prob(at, 2), math.Exp(float64(scores[at*k+2]))/z; !agree(got, p) {
			t.Errorf("P(tag 2 at %d) is %v, want %v", at, got, p)
		}
	}
}
