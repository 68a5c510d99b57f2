package tensor_test

import (
	"math/rand/v2"
	"testing"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/tensor/tensortest"
)

func random(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// model has up to three parameters.
type model struct{ A, B, C *tensor.Param }

func newModel(dims ...[]int) (*model, *tensor.Slab) {
	m := &model{}
	for i, p := range []**tensor.Param{&m.A, &m.B, &m.C} {
		if i < len(dims) {
			*p = tensor.NewParam(string(rune('a'+i)), nn.Normal(0.7), dims[i]...)
		}
	}
	return m, tensor.Pack(tensor.CPU(), m, 3)
}

// project makes a loss of any tensor: a fixed random projection.
func project(x *tensor.Tensor) *tensor.Tensor {
	w := random(rand.New(rand.NewPCG(5, uint64(x.Len()))), x.Len())
	return tensor.SumAll(tensor.Mul(tensor.Reshape(x, x.Len()), x.Tape().Input(w, x.Len())))
}

// live puts a parameter on the tape, so that operations see tensors, not parameters.
func live(t *tensor.Tape, p *tensor.Param) *tensor.Tensor {
	return tensor.Add(t.Zeros(p.Dims()...), p.T())
}

// running returns a running statistic of a normalisation, which gets no gradient.
func running(n int) *tensor.Param {
	p := tensor.NewParam("running", nn.Constant(1), n)
	tensor.Pack(tensor.CPU(), []*tensor.Param{p}, 0)
	return p
}

func TestGradients(t *testing.T) {
	lengths := []int32{3, 0, 4}
	seq := func(tp *tensor.Tape, m *model) *tensor.Tensor { // [3,4,5] with lengths
		x := tp.Sequences(make([]float32, 60), lengths, 3, 4, 5)
		return tensor.Add(x, m.A.T())
	}
	cases := []struct {
		name string
		dims [][]int
		loss func(*tensor.Tape, *model) *tensor.Tensor
	}{
		{"linear", [][]int{{2, 3, 4}, {5, 4}, {5}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			return project(tensor.Linear(live(tp, m.A), m.B.T(), m.C.T()))
		}},
		{"matmul", [][]int{{2, 3, 4}, {2, 4, 5}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			return project(tensor.MatMul(live(tp, m.A), m.B.T(), false))
		}},
		{"matmul transposed", [][]int{{2, 3, 4}, {2, 5, 4}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			return project(tensor.MatMul(live(tp, m.A), m.B.T(), true))
		}},
		{"same operand twice", [][]int{{4, 4}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			x := live(tp, m.A)
			return project(tensor.Mul(tensor.MatMul(x, x, true), x))
		}},
		{"broadcast", [][]int{{2, 3, 4}, {3, 4}, {4}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			x := tensor.Sub(tensor.Mul(live(tp, m.A), m.B.T()), m.C.T())
			return project(tensor.Div(x, tensor.AddScalar(tensor.Square(m.live(tp)), 1)))
		}},
		{"functions", [][]int{{3, 4}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			x := live(tp, m.A)
			y := tensor.Add(tensor.Sigmoid(x), tensor.Tanh(tensor.MulScalar(x, 2)))
			y = tensor.Add(y, tensor.Log(tensor.AddScalar(tensor.Exp(x), 1)))
			return project(tensor.Add(y, tensor.Softplus(x)))
		}},
		{"dropout", [][]int{{20, 4}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			tp.Seed(3, 9)
			return project(tensor.Dropout(live(tp, m.A), 0.4))
		}},
		{"shapes", [][]int{{2, 3, 4}, {2, 2, 4}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			x := tensor.Concat(1, live(tp, m.A), m.B.T(), m.A.T()) // [2,8,4]
			x = tensor.Transpose(tensor.Slice(x, 1, 1, 7), 0, 2)   // [4,6,2]
			x = tensor.Repeat(tensor.Reshape(x, 4, -1), 1, 3)      // [4,3,12]
			return project(tensor.Transpose(x, -1, -2))
		}},
		{"layer norm", [][]int{{3, 5}, {5}, {5}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			return project(tensor.LayerNorm(live(tp, m.A), m.B.T(), m.C.T(), 1e-3))
		}},
		{"conv", [][]int{{3, 9, 4}, {6, 2, 3}, {6}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			o := tensor.ConvOptions{Groups: 2, Activation: cell.Tanh, Windows: tensor.Windows{Stride: [2]int{2}, Padding: [2][2]int{{1, 2}}}}
			return project(tensor.Conv(live(tp, m.A), m.B.T(), m.C.T(), o))
		}},
		{"conv of ragged images", [][]int{{3, 4, 5, 2}, {3, 2, 3, 2}, {3}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			x := tp.Sequences(make([]float32, 120), lengths, 3, 4, 10)
			x = tensor.Add(tensor.Reshape(x, 3, 4, 5, 2), m.A.T())
			y := tensor.Conv(x, m.B.T(), m.C.T(), tensor.ConvOptions{Windows: tensor.Windows{Padding: [2][2]int{{1, 1}, {0, 1}}}})
			return project(tensor.MeanPool(tensor.Reshape(y, y.Dim(0), y.Dim(1), -1)))
		}},
		{"transposed conv", [][]int{{2, 3, 4, 2}, {2, 3, 2, 3}, {3}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			o := tensor.ConvOptions{Windows: tensor.Windows{Stride: [2]int{2, 3}, Padding: [2][2]int{{1, 0}, {0, 1}}}}
			x := live(tp, m.A)
			y := tensor.ConvTranspose(x, m.B.T(), m.C.T(), o, [2]int{6, 0})
			return tensor.Add(project(y), project(tensor.Square(x)))
		}},
		{"windows", [][]int{{1, 3, 4, 2}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			o := tensor.Windows{Kernel: [2]int{2, 3}, Stride: [2]int{1, 2}, Padding: [2][2]int{{1, 0}, {1, 1}}, Ceil: true, CountPad: true}
			x := live(tp, m.A)
			return project(tensor.Add(tensor.WindowMax(x, o), tensor.WindowMean(x, o)))
		}},
		{"batch norm", [][]int{{2, 3, 4, 3}, {3}, {3}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			return project(tensor.BatchNorm(live(tp, m.A), m.B.T(), m.C.T(), running(3), running(3), 0.1, 1e-3))
		}},
		{"batch norm of ragged rows", [][]int{{3, 4, 5}, {5}, {5}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			return project(tensor.MeanPool(tensor.Square(tensor.BatchNorm(seq(tp, m), m.B.T(), m.C.T(), running(5), running(5), 0.1, 1e-3))))
		}},
		{"softmax", [][]int{{3, 4, 5}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			x := live(tp, m.A)
			return project(tensor.Add(tensor.Softmax(x, []int32{5, 0, 2}), tensor.LogSoftmax(x)))
		}},
		{"additive scores", [][]int{{3, 2, 5}, {3, 4, 5}, {5}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			return project(tensor.AdditiveScores(live(tp, m.A), m.B.T(), m.C.T(), []int32{4, 0, 3}, nil, nil))
		}},
		{"additive scores with coverage", [][]int{{2, 3, 4}, {2, 3, 4}, {4}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			cover := tensor.Slice(live(tp, m.A), 2, 0, 3)
			return project(tensor.AdditiveScores(live(tp, m.B), m.A.T(), m.C.T(), nil, cover, m.C.T()))
		}},
		{"embedding", [][]int{{6, 3}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			return project(tensor.Embed(m.A.T(), tp.IDs([]int32{1, 0, 5, 1}, nil, 2, 2), -1))
		}},
		{"last", [][]int{{3, 4, 5}}, func(tp *tensor.Tape, m *model) *tensor.Tensor { return project(tensor.LastStep(seq(tp, m))) }},
		{"mean", [][]int{{3, 4, 5}}, func(tp *tensor.Tape, m *model) *tensor.Tensor { return project(tensor.MeanPool(seq(tp, m))) }},
		{"max", [][]int{{3, 4, 5}}, func(tp *tensor.Tape, m *model) *tensor.Tensor { return project(tensor.MaxPool(seq(tp, m))) }},
		{"masked loss", [][]int{{3, 4, 5}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			return tensor.MSE(seq(tp, m), tp.Zeros(3, 4, 5), nil)
		}},
		{"ctc", [][]int{{3, 6, 4}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			x := tensor.Add(tp.Sequences(make([]float32, 72), []int32{6, 2, 4}, 3, 6, 4), m.A.T())
			loss, _ := tensor.CTC(x, tp.IDs([]int32{1, 2, 2, 3, 3, 3, 1, 1, 1}, []int32{3, 2, 2}, 3, 3), nil)
			return loss
		}},
		{"loss twice", [][]int{{6, 3}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			x := live(tp, m.A)
			ce := tensor.CrossEntropy(x, tp.IDs([]int32{0, 1, 2, 2, 1, 0}, nil, 6), nil)
			return tensor.Add(tensor.MulScalar(ce, 3), tensor.BCE(x, tp.Zeros(6, 3), nil))
		}},
		// Each of the two turns has a second reader, whose gradient comes first.
		{"time order of what is read twice", [][]int{{3, 4, 5}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			x := seq(tp, m)
			steps := tensor.TimeMajor(x)
			back := tensor.BatchMajor(steps)
			return tensor.Add(project(tensor.Mul(back, x)), project(tensor.Square(steps)))
		}},
		{"crf", [][]int{{3, 4, 5}, {5, 5}, {5}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			tags := tp.IDs([]int32{1, 4, 0, -1, -1, -1, -1, -1, 3, 3, 2, 1}, nil, 3, 4)
			return tensor.MulScalar(tensor.CRF(seq(tp, m), live(tp, m.B), m.C.T(), m.C.T(), tags), 2)
		}},
		{"crf of full rows without ends", [][]int{{2, 3, 4}, {4, 4}}, func(tp *tensor.Tape, m *model) *tensor.Tensor {
			return tensor.CRF(live(tp, m.A), m.B.T(), nil, nil, tp.IDs([]int32{1, 3, 0, 2, 2, 2}, nil, 2, 3))
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m, slab := newModel(c.dims...)
			tensortest.CheckGrad(t, slab, func(tp *tensor.Tape) *tensor.Tensor { return c.loss(tp, m) })
		})
	}
}

func (m *model) live(tp *tensor.Tape) *tensor.Tensor { return live(tp, m.A) }

// The gradient check must itself be able to fail.
func TestAGradientThatIsStoppedIsSeen(t *testing.T) {
	m, slab := newModel([]int{3, 4})
	tp := tensor.NewTape(tensor.CPU(), tensor.Train)
	x := live(tp, m.A)
	cut := tp.Input(x.Data(), 3, 4) // a copy has no history
	project(tensor.Add(cut, tensor.MulScalar(x, 0))).Backward()
	for _, g := range slab.Params[0].Grad() {
		if g != 0 {
			t.Fatalf("a copied value passed the gradient %v", g)
		}
	}
}

func TestLossesSkipPadding(t *testing.T) {
	tp := tensor.NewTape(tensor.CPU(), tensor.Train)
	pred := tp.Sequences([]float32{1, 2, 99, 3, 98, 97}, []int32{2, 1}, 2, 3, 1)
	target := tp.Input([]float32{0, 0, -50, 0, -60, -70}, 2, 3, 1)
	if got, want := tensor.MSE(pred, target, nil).Item(), float32(1+4+9)/3; got != want {
		t.Errorf("MSE over 3 true steps is %v, want %v", got, want)
	}
	w := tp.Input([]float32{1, 0, 5, 3, 5, 5}, 2, 3, 1)
	if got, want := tensor.MAE(pred, target, &tensor.LossOptions{Weight: w}).Item(), float32(1*1+3*3)/4; got != want {
		t.Errorf("weighted MAE is %v, want %v", got, want)
	}
}

func TestShapeErrorsSayWhatCame(t *testing.T) {
	tp := tensor.NewTape(tensor.CPU(), tensor.Train)
	x := tp.Zeros(32, 64)
	m, _ := newModel([]int{128, 48})
	cases := []struct {
		want string
		f    func()
	}{
		{"tensor: Linear: input [32,64] needs weight [_ 64], got [128,48] (param a)", func() { tensor.Linear(x, m.A.T(), nil) }},
		{"tensor: Dropout: probability must be in [0,1), got 1", func() { tensor.Dropout(x, 1) }},
		{"tensor: Embed: id 200 at position 1 is outside the table [128,48] (param a)", func() { tensor.Embed(m.A.T(), tp.IDs([]int32{0, 200}, nil, 2), -1) }},
		{"tensor: CTC: label 1 of row 0 is 0, want a class 0 to 3 other than the blank, 0", func() {
			tensor.CTC(tp.Zeros(1, 5, 4), tp.IDs([]int32{2, 0}, nil, 1, 2), nil)
		}},
		{"tensor: CRF: scores [2,1,64] need transitions [64,64], got [128,48] (param a)", func() {
			tensor.CRF(tensor.Reshape(tensor.Slice(x, 0, 0, 2), 2, 1, 64), m.A.T(), nil, nil, tp.IDs([]int32{0, 0}, nil, 2, 1))
		}},
		{"tensor: CRF: tag 2 at step 1 of row 0 is outside 0..1", func() {
			tensor.CRF(tp.Zeros(1, 2, 2), tp.Zeros(2, 2), nil, nil, tp.IDs([]int32{0, 2}, nil, 1, 2))
		}},
		{"tensor: Input: shape [2,2] needs 4 elements, got 3", func() { tp.Input(make([]float32, 3), 2, 2) }},
		{"tensor: Sequences: length of row 1 must be 0 to 3, got 4", func() { tp.Sequences(make([]float32, 6), []int32{1, 4}, 2, 3, 1) }},
		{"tensor: Add: a tensor [32,64] is used after its tape was reset", func() {
			other := tensor.NewTape(tensor.CPU(), tensor.Infer)
			y := other.Zeros(32, 64)
			other.Reset()
			tensor.Add(y, y)
		}},
		{"tensor: Linear: parameter [2,64] (param w) has no memory yet: call tensor.Pack first", func() {
			tensor.Linear(x, tensor.NewParam("w", nil, 2, 64).T(), nil)
		}},
	}
	for _, c := range cases {
		err := tensor.Catch(c.f)
		if err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}
