package forecast

import (
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// network is the trained part of the model. The encoder reads the window. The
// decoder, a stack of the same kind, begins in the encoder's final state and
// reads what is known of each step of the horizon; if nothing is, there is no
// decoder, and the head maps the encoder's last output to all steps. A linear
// path from window and covariates to the location is added to the head's output,
// after NLinear (Zeng et al., arXiv:2205.13504).
//
// A step is a row of the table, or a segment of rows that a linear layer and ReLU
// embed, after SegRNN (Lin et al., arXiv:2308.11200). With segments there is a
// decoder even if nothing is known of the horizon: it reads at least the position
// in it. The head maps each of the outputs to the rows of a segment.
//
// Without target history the encoder reads what is known of the steps of window
// and horizon alike, there is no decoder, and the head maps its output at each step
// of the horizon: one stack from drivers to response, as in Kratzert et al. (HESS
// 2019).
//
// An autoregressive network is one stack, Encoder, that forecasts the next row as
// the current one plus the head's output.
type network struct {
	Static  *nn.Embedding // of static categories; nil: none
	Encoder *nn.RNN
	Decoder *nn.RNN // nil: none
	Head    *nn.Linear
	Skip    *skip // nil: none

	EncoderSegment, DecoderSegment *nn.Linear // embed segments; nil: steps are single rows

	// Members are all networks of the model, of which the forecast is the mean; of the
	// first one, which is this, alone: its parameters are named before the others'.
	Members []*network

	cfg  *Config
	dims shape
	drop *nn.Dropout
}

// skip is the linear path: Weight for inputs, and Group for the kind of time.
type skip struct {
	Weight *tensor.Param // weight [targets, linear, horizon]
	Group  *tensor.Param // group [targets*groups, horizon]; nil: none
}

// staticWidth is the size of a static category's vector.
const staticWidth = 8

func newNetwork(cfg *Config, d shape) *network {
	n := &network{cfg: cfg, dims: d, drop: nn.NewDropout(float32(cfg.Dropout))}
	if d.table > 0 {
		n.Static = nn.NewEmbedding(d.table, staticWidth, nil)
	}
	past, ahead := d.encoder+d.ids*staticWidth, d.decoder+d.ids*staticWidth
	if d.segment > 1 {
		n.EncoderSegment = nn.NewLinear(past, cfg.Hidden, nil)
		past = cfg.Hidden
		if d.decoder > 0 {
			n.DecoderSegment = nn.NewLinear(ahead, cfg.Hidden, nil)
			ahead = cfg.Hidden
		}
	}
	n.Encoder = stack(cfg.RNNConfig, past)
	out := d.channels * d.outputs * d.segment
	if d.decoder > 0 && cfg.Head == "direct" {
		c := cfg.RNNConfig
		c.LearnState = false // it begins in the encoder's final state
		n.Decoder = stack(c, ahead)
	} else if cfg.Head == "direct" && !cfg.NoTargetHistory {
		out *= d.horizon
	}
	o := &nn.LinearOptions{}
	if cfg.Skip != "none" && cfg.Head == "direct" {
		o.Init = nn.Constant(0) // training starts from the linear path alone
	}
	n.Head = nn.NewLinear(n.Encoder.OutputSize(), out, o)
	if cfg.Head == "direct" && cfg.Skip != "none" {
		n.Skip = &skip{Weight: tensor.NewParam("weight", nil, d.targets, d.linear, d.horizon)}
		if d.groups > 0 {
			n.Skip.Group = tensor.NewParam("group", nil, d.targets*d.groups, d.horizon)
		}
	}
	return n
}

// stack makes a recurrent stack for a valid configuration; it panics for others.
func stack(c task.RNNConfig, in int) *nn.RNN {
	m, err := c.Build(in)
	if err != nil {
		panic(err)
	}
	return m
}

// startAt sets the linear path to a ridge regression.
func (s *skip) startAt(r *ridge) {
	weight, group := s.flat(r)
	s.Weight.Write(weight)
	if s.Group != nil {
		s.Group.Write(group)
	}
}

// move moves the linear path by the difference of two regressions, so that what it
// has learnt since remains.
func (s *skip) move(from, to *ridge) {
	oldWeight, oldGroup := s.flat(from)
	weight, group := s.flat(to)
	s.add([2][]float32{difference(weight, oldWeight), difference(group, oldGroup)}, 1)
}

// learnt returns how weight and group differ from a regression.
func (s *skip) learnt(since *ridge) (d [2][]float32) {
	weight, group := s.flat(since)
	d[0] = difference(s.Weight.Read(), weight)
	if s.Group != nil {
		d[1] = difference(s.Group.Read(), group)
	}
	return d
}

// add adds a multiple of a difference to weight and group.
func (s *skip) add(d [2][]float32, factor float32) {
	for i, p := range []*tensor.Param{s.Weight, s.Group} {
		if p == nil || factor == 0 {
			continue
		}
		x := p.Read()
		for j, v := range d[i] {
			x[j] += factor * v
		}
		p.Write(x)
	}
}

func difference(x, y []float32) []float32 {
	d := make([]float32, len(x))
	for i := range d {
		d[i] = x[i] - y[i]
	}
	return d
}

// flat returns a regression as the path's weights.
func (s *skip) flat(r *ridge) (weight, group []float32) {
	weight = make([]float32, s.Weight.Len())
	at := 0
	for _, w := range r.weights {
		for i := range r.linear {
			for _, v := range w.RawRowView(i) {
				weight[at] = float32(v)
				at++
			}
		}
		for g := range r.groups {
			for _, v := range w.RawRowView(r.linear + g) {
				group = append(group, float32(v))
			}
		}
	}
	return weight, group
}

// forward returns the output [targets,n,horizon,outputs] for a batch of n
// windows.
func (n *network) forward(t *tensor.Tape, b *batch) *tensor.Tensor {
	d := &n.dims
	static := n.static(t, b)
	past := joined(t.Input(b.encoder, b.rows, d.read, d.encoder), static)
	y, state := n.Encoder.Forward(embedded(n.EncoderSegment, past), nil)
	switch {
	case n.cfg.NoTargetHistory:
		y = tensor.Slice(y, 1, d.steps(d.window), d.read)
	case n.Decoder != nil:
		ahead := joined(t.Input(b.decoder, b.rows, d.steps(d.horizon), d.decoder), static)
		y, _ = n.Decoder.Forward(embedded(n.DecoderSegment, ahead), state)
	default:
		y = n.ends(y)
	}
	out := n.Head.Forward(n.drop.Forward(y))
	if d.segment > 1 {
		out = tensor.Reshape(out, b.rows, d.steps(d.horizon)*d.segment, d.channels*d.outputs)
		out = tensor.Slice(out, 1, 0, d.horizon)
	}
	if d.channels == 1 {
		out = tensor.Reshape(out, d.targets, b.n, d.horizon, d.outputs)
	} else {
		out = tensor.Reshape(out, b.n, d.horizon, d.targets, d.outputs)
		out = tensor.Transpose(tensor.Transpose(out, 0, 1), 0, 2)
	}
	return n.locate(t, b, out)
}

// ends returns the encoder's output [rows,...] at the end of each direction:
// forward at the last step, backward at the first.
func (n *network) ends(y *tensor.Tensor) *tensor.Tensor {
	width, T := n.Encoder.StateSize(), y.Dim(1)
	end := tensor.Reshape(tensor.Slice(y, 1, T-1, T), y.Dim(0), y.Dim(2))
	if n.Encoder.Directions() == 1 {
		return end
	}
	begin := tensor.Reshape(tensor.Slice(y, 1, 0, 1), y.Dim(0), y.Dim(2))
	return tensor.Concat(-1, tensor.Slice(end, 1, 0, width), tensor.Slice(begin, 1, width, 2*width))
}

// static returns the vectors of the rows' static categories [rows,...], or nil.
func (n *network) static(t *tensor.Tape, b *batch) *tensor.Tensor {
	if n.Static == nil {
		return nil
	}
	v := n.Static.Forward(t.IDs(b.ids, nil, b.rows, n.dims.ids))
	return tensor.Reshape(v, b.rows, n.dims.ids*staticWidth)
}

// joined concatenates static to each step of x.
func joined(x, static *tensor.Tensor) *tensor.Tensor {
	if static == nil {
		return x
	}
	return tensor.Concat(-1, x, tensor.Repeat(static, 1, x.Dim(1)))
}

// embedded returns steps as the recurrent stack reads them.
func embedded(segment *nn.Linear, x *tensor.Tensor) *tensor.Tensor {
	if segment == nil {
		return x
	}
	return tensor.ReLU(segment.Forward(x))
}

// locate adds the linear path to the location: the first output, or all
// quantiles. The mean of a negative binomial is converted from the window's units
// to the data's.
func (n *network) locate(t *tensor.Tape, b *batch, out *tensor.Tensor) *tensor.Tensor {
	d := &n.dims
	if n.Skip == nil && n.cfg.Loss != "negative-binomial" {
		return out
	}
	location, rest := out, (*tensor.Tensor)(nil)
	if d.outputs > 1 && n.cfg.Loss != "quantile" {
		location, rest = tensor.Slice(out, 3, 0, 1), tensor.Slice(out, 3, 1, d.outputs)
	}
	if n.Skip != nil {
		line := tensor.MatMul(t.Input(b.linear, d.targets, b.n, d.linear), n.Skip.Weight.T(), false)
		if n.Skip.Group != nil {
			line = tensor.Add(line, tensor.Embed(n.Skip.Group.T(), t.IDs(b.group, nil, d.targets, b.n), -1))
		}
		if location.Dim(3) == 1 {
			line = tensor.Reshape(line, d.targets, b.n, d.horizon, 1)
		} else {
			line = tensor.Repeat(line, 3, location.Dim(3))
		}
		location = tensor.Add(location, line)
	}
	if n.cfg.Loss == "negative-binomial" {
		scale := t.Input(b.unitScale, d.targets, b.n, d.horizon, 1)
		location = tensor.Add(tensor.Mul(location, scale), t.Input(b.unitShift, d.targets, b.n, d.horizon, 1))
	}
	if rest == nil {
		return location
	}
	return tensor.Concat(3, location, rest)
}

// unroll returns the output of an autoregressive network
// [rows,steps,channels,outputs] for known inputs [rows,steps,encoder], and the
// final state.
func (n *network) unroll(t *tensor.Tape, b *batch, x *tensor.Tensor, state *nn.State) (*tensor.Tensor, *nn.State) {
	d := &n.dims
	y, state := n.Encoder.Forward(joined(x, n.static(t, b)), state)
	out := n.Head.Forward(n.drop.Forward(y))
	out = tensor.Reshape(out, b.rows, x.Dim(1), d.channels, d.outputs)
	now := tensor.Reshape(tensor.Slice(x, 2, 0, d.channels), b.rows, x.Dim(1), d.channels, 1)
	if d.outputs == 1 {
		return tensor.Add(out, now), state
	}
	return tensor.Concat(3, tensor.Add(tensor.Slice(out, 3, 0, 1), now), tensor.Slice(out, 3, 1, d.outputs)), state
}

// loss returns the mean loss of a batch.
func (n *network) loss(t *tensor.Tape, b *batch) *tensor.Tensor {
	d := &n.dims
	var out, target *tensor.Tensor
	var dims []int
	if n.cfg.Head == "autoregressive" {
		steps := d.window + d.horizon - 1
		out, _ = n.unroll(t, b, t.Input(b.encoder, b.rows, steps, d.encoder), nil)
		dims = []int{b.rows, steps, d.channels}
	} else {
		out = n.forward(t, b)
		dims = []int{d.targets, b.n, d.horizon}
	}
	target = t.Input(b.target, dims...)
	o := &tensor.LossOptions{Weight: t.Input(b.weight, dims...)}
	if d.outputs == 1 {
		out = tensor.Reshape(out, dims...)
	}
	switch n.cfg.Loss {
	case "mse":
		return tensor.MSE(out, target, o)
	case "huber":
		return tensor.Huber(out, target, 1, o)
	case "quantile":
		return tensor.Pinball(out, target, narrow(n.cfg.Quantiles), o)
	case "gaussian":
		return tensor.Gaussian(out, target, o)
	case "student-t":
		return tensor.StudentT(out, target, o)
	case "negative-binomial":
		return tensor.NegBinomial(out, target, o)
	}
	return tensor.MAE(out, target, o)
}

func narrow(x []float64) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(v)
	}
	return y
}
