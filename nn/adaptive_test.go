package nn_test

import (
	"math"
	"testing"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/tensor/tensortest"
)

// adaptive is an AdaptiveSoftmax over 12 classes, on inputs of 6 numbers.
type adaptive struct {
	X     *tensor.Param
	Table *tensor.Param
	Out   *nn.AdaptiveSoftmax
}

func newAdaptive(tied bool) (*adaptive, *tensor.Slab) {
	m := &adaptive{X: tensor.NewParam("x", nn.Normal(1), 5, 6)}
	o := &nn.AdaptiveOptions{Div: 2, HeadBias: true}
	if tied {
		m.Table = tensor.NewParam("table", nn.Normal(1), 12, 6)
		o.Tied = m.Table
	}
	m.Out = nn.NewAdaptiveSoftmax(6, 12, []int{4, 7}, o)
	return m, tensor.Pack(tensor.CPU(), m, 3)
}

// One target in the head, two in each cluster's reach, and one that does not count.
var adaptiveTargets = []int32{2, 5, 11, -100, 6}

func TestAdaptiveSoftmaxGradient(t *testing.T) {
	for name, tied := range map[string]bool{"free": false, "tied": true} {
		t.Run(name, func(t *testing.T) {
			m, slab := newAdaptive(tied)
			tensortest.CheckGrad(t, slab, func(tape *tensor.Tape) *tensor.Tensor {
				return m.Out.Loss(tape.Param(m.X), adaptiveTargets)
			})
		})
	}
}

// TestAdaptiveSoftmaxAgrees holds loss, scores and the whole distribution to the
// definition, computed here from the weights.
func TestAdaptiveSoftmaxAgrees(t *testing.T) {
	m, slab := newAdaptive(true)
	for _, p := range slab.Params {
		if p.NoDecay { // biases begin at zero
			w := p.Read()
			for i := range w {
				w[i] = float32(i%3) - 1
			}
			p.Write(w)
		}
	}
	dot := func(x, w []float32, b float32) float64 {
		sum := float64(b)
		for i := range x {
			sum += float64(x[i]) * float64(w[i])
		}
		return sum
	}
	logSoftmax := func(v []float64) []float64 {
		sum := 0.0
		for _, x := range v {
			sum += math.Exp(x)
		}
		out := make([]float64, len(v))
		for i, x := range v {
			out[i] = x - math.Log(sum)
		}
		return out
	}
	table, bias := m.Table.Read(), m.Out.Bias.Read()
	clusters, entry := m.Out.Clusters.Weight.Read(), m.Out.Clusters.Bias.Read()
	x := m.X.Read()
	var want [][]float64
	for n := range 5 {
		row := x[n*6 : (n+1)*6]
		var logits []float64
		for c := range 12 {
			logits = append(logits, dot(row, table[c*6:(c+1)*6], bias[c]))
		}
		head := logSoftmax(append(append([]float64{}, logits[:4]...), dot(row, clusters[:6], entry[0]), dot(row, clusters[6:], entry[1])))
		p := append([]float64{}, head[:4]...)
		for k, in := range [][]float64{logSoftmax(logits[4:7]), logSoftmax(logits[7:])} {
			for _, v := range in {
				p = append(p, head[4+k]+v)
			}
		}
		want = append(want, p)
	}

	tape := tensor.NewTape(tensor.CPU(), tensor.Infer)
	in := tape.Param(m.X)
	all := m.Out.LogProb(in).Data()
	scores := make([]float32, 5)
	m.Out.Score(scores, in, adaptiveTargets)
	mean := 0.0
	for n, target := range adaptiveTargets {
		for c := range 12 {
			if d := math.Abs(float64(all[n*12+c]) - want[n][c]); d > 1e-5 {
				t.Errorf("log p of class %d, item %d: %v, want %v", c, n, all[n*12+c], want[n][c])
			}
		}
		expected := 0.0
		if target >= 0 {
			expected = want[n][target]
			mean -= expected / 4
		}
		if math.Abs(float64(scores[n])-expected) > 1e-5 {
			t.Errorf("score of item %d: %v, want %v", n, scores[n], expected)
		}
	}
	if got := float64(m.Out.Loss(in, adaptiveTargets).Item()); math.Abs(got-mean) > 1e-5 {
		t.Errorf("loss %v, want %v", got, mean)
	}
	if got := m.Out.Loss(in, []int32{-100, -100, -100, -100, -100}).Item(); got != 0 {
		t.Errorf("loss without any target: %v, want 0", got)
	}
}

func TestAdaptiveSoftmaxRefuses(t *testing.T) {
	for name, f := range map[string]func(){
		"no cutoffs":      func() { nn.NewAdaptiveSoftmax(4, 10, nil, nil) },
		"not ascending":   func() { nn.NewAdaptiveSoftmax(4, 10, []int{5, 5}, nil) },
		"beyond the last": func() { nn.NewAdaptiveSoftmax(4, 10, []int{10}, nil) },
		"other table": func() {
			nn.NewAdaptiveSoftmax(4, 10, []int{5}, &nn.AdaptiveOptions{Tied: tensor.NewParam("w", nil, 9, 4)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := tensor.Catch(f); err == nil {
				t.Error("no panic")
			}
		})
	}
}
