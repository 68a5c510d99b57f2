package nn

import (
	"fmt"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/tensor"
)

// AdaptiveSoftmax is a softmax over very many classes, numbered by falling
// frequency, at the cost of the frequent ones (Grave et al. 2017; the arithmetic
// of torch.nn.AdaptiveLogSoftmaxWithLoss). The head decides among the classes
// below the first cutoff and one entry for each cluster; a cluster, the classes
// from one cutoff to the next, is looked into only where a target lies in it:
//
//	log p(w) = log softmax(head)[w]                                  w below the first cutoff
//	log p(w) = log softmax(head)[cutoff₀+k] + log softmax(tailₖ)[w]   w in cluster k
//
// Free, tail k is a projection to in/div^(k+1) numbers and its classes' weights,
// as in PyTorch. Tied, the classes' weights are the rows of a table such as an
// embedding's, without projections, and all have biases.
type AdaptiveSoftmax struct {
	Head *Linear      // free: [cutoff₀+clusters, in]
	Tail [][2]*Linear // free: by cluster [in/div^(k+1), in] and [classes, in/div^(k+1)], without biases

	Table    *tensor.Param // tied: [classes, in]
	Bias     *tensor.Param // tied: [classes], zeros
	Clusters *Linear       // tied: the clusters' entries of the head, [clusters, in]

	bounds []int // the first class of each cluster, and at the end the number of classes
	pool   par.Pool[route]
}

// AdaptiveOptions changes an AdaptiveSoftmax; nil is PyTorch's default.
type AdaptiveOptions struct {
	Div      float64       // what the width of a tail is divided by, from cluster to cluster; 0 means 4
	HeadBias bool          // free: a bias for the head
	Tied     *tensor.Param // [classes,in]: ties the classes' weights to these
}

// NewAdaptiveSoftmax has classes classes, with clusters that begin at the given
// ascending cutoffs, each in 1..classes-1.
func NewAdaptiveSoftmax(in, classes int, cutoffs []int, o *AdaptiveOptions) *AdaptiveSoftmax {
	if o == nil {
		o = &AdaptiveOptions{}
	}
	a := &AdaptiveSoftmax{bounds: append(slices.Clone(cutoffs), classes)}
	last := 0
	for _, b := range a.bounds {
		tensor.Check(b > last, "nn: AdaptiveSoftmax", "needs ascending cutoffs in 1..%d, got %v", classes-1, cutoffs)
		last = b
	}
	clusters := len(cutoffs)
	tensor.Check(clusters > 0, "nn: AdaptiveSoftmax", "needs a cutoff; without one it is a Linear")
	if o.Tied != nil {
		d := o.Tied.Dims()
		tensor.Check(d[0] == classes && d[len(d)-1] == in, "nn: AdaptiveSoftmax", "%d classes of width %d cannot be tied to a table %v", classes, in, d)
		a.Table, a.Clusters = o.Tied, NewLinear(in, clusters, nil)
		a.Bias = tensor.NewParam("bias", nil, classes)
		a.Bias.NoDecay = true
		return a
	}
	div := o.Div
	if div == 0 {
		div = 4
	}
	a.Head = NewLinear(in, a.bounds[0]+clusters, &LinearOptions{NoBias: !o.HeadBias})
	for k := range clusters {
		width := max(int(float64(in)/math.Pow(div, float64(k+1))), 1)
		free := &LinearOptions{NoBias: true}
		a.Tail = append(a.Tail, [2]*Linear{NewLinear(in, width, free), NewLinear(width, a.bounds[k+1]-a.bounds[k], free)})
	}
	return a
}

// Classes is their number.
func (a *AdaptiveSoftmax) Classes() int { return a.bounds[len(a.bounds)-1] }

// Cutoffs are the first classes of the clusters.
func (a *AdaptiveSoftmax) Cutoffs() []int { return slices.Clone(a.bounds[:len(a.bounds)-1]) }

func (a *AdaptiveSoftmax) clusters() int { return len(a.bounds) - 1 }

// route is where the items of a batch go.
type route struct {
	head []int32   // by item: the class in the head, or ignored
	rows [][]int32 // by cluster: the items in it
	in   [][]int32 // and their classes, counted from the cluster's first
	n    int       // items that count
	out  []float32
}

const ignored = -100

func (a *AdaptiveSoftmax) route(targets []int32) *route {
	r := a.pool.Get()
	if r.rows == nil {
		r.rows, r.in = make([][]int32, a.clusters()), make([][]int32, a.clusters())
	}
	r.head, r.n = r.head[:0], 0
	for k := range r.rows {
		r.rows[k], r.in[k] = r.rows[k][:0], r.in[k][:0]
	}
	for i, t := range targets {
		switch {
		case t < 0:
			r.head = append(r.head, ignored)
			continue
		case int(t) >= a.Classes():
			panic(&tensor.ShapeError{Op: "AdaptiveSoftmax", Msg: fmt.Sprintf("target %d at place %d is outside 0..%d", t, i, a.Classes()-1)})
		}
		r.n++
		k := 0
		for int(t) >= a.bounds[k] {
			k++
		}
		if k--; k < 0 {
			r.head = append(r.head, t)
			continue
		}
		r.head = append(r.head, int32(a.bounds[0]+k))
		r.rows[k], r.in[k] = append(r.rows[k], int32(i)), append(r.in[k], t-int32(a.bounds[k]))
	}
	return r
}

// Loss is the mean of -log p(target) over x [N,in], a tensor [1]; items whose
// target is negative do not count, and no item at all gives 0.
func (a *AdaptiveSoftmax) Loss(x *tensor.Tensor, targets []int32) *tensor.Tensor {
	tape := x.Tape()
	r := a.route(targets)
	defer a.pool.Put(r)
	loss := tensor.CrossEntropy(a.head(x), tape.IDs(r.head, nil, len(r.head)), nil)
	for k, rows := range r.rows {
		if len(rows) == 0 {
			continue
		}
		some := tensor.Embed(x, tape.IDs(rows, nil, len(rows)), -1)
		l := tensor.CrossEntropy(a.tail(k, some), tape.IDs(r.in[k], nil, len(rows)), nil)
		loss = tensor.Add(loss, tensor.MulScalar(l, float32(len(rows))/float32(r.n)))
	}
	return loss
}

// Score waits for log p(target) of each of x's items [N,in] and writes it to
// dst; 0 where the target is negative. Only the clusters of targets are computed.
func (a *AdaptiveSoftmax) Score(dst []float32, x *tensor.Tensor, targets []int32) {
	tape := x.Tape()
	r := a.route(targets)
	defer a.pool.Put(r)
	pick := func(logits *tensor.Tensor, classes []int32, add func(i int, v float32)) {
		p := tensor.LogSoftmax(logits)
		width := p.Dim(-1)
		r.out = slices.Grow(r.out[:0], p.Len())[:p.Len()]
		p.CopyTo(r.out)
		for i, c := range classes {
			if c >= 0 {
				add(i, r.out[i*width+int(c)])
			}
		}
	}
	clear(dst)
	pick(a.head(x), r.head, func(i int, v float32) { dst[i] = v })
	for k, rows := range r.rows {
		if len(rows) > 0 {
			some := tensor.Embed(x, tape.IDs(rows, nil, len(rows)), -1)
			pick(a.tail(k, some), r.in[k], func(i int, v float32) { dst[rows[i]] += v })
		}
	}
}

// LogProb is log p of every class: x [N,in] to [N,classes].
func (a *AdaptiveSoftmax) LogProb(x *tensor.Tensor) *tensor.Tensor {
	first, n := a.bounds[0], x.Dim(0)
	var all *tensor.Tensor // tied: one product with the whole table, whose panels the device keeps
	head := func() *tensor.Tensor { return a.head(x) }
	tail := func(k int) *tensor.Tensor { return a.tail(k, x) }
	if a.Table != nil {
		all = tensor.Linear(x, a.Table.T(), a.Bias.T())
		head = func() *tensor.Tensor {
			return tensor.Concat(1, tensor.Slice(all, 1, 0, first), a.Clusters.Forward(x))
		}
		tail = func(k int) *tensor.Tensor { return tensor.Slice(all, 1, a.bounds[k], a.bounds[k+1]) }
	}
	p := tensor.LogSoftmax(head())
	parts := []*tensor.Tensor{tensor.Slice(p, 1, 0, first)}
	for k := range a.clusters() {
		cluster := tensor.Reshape(tensor.Slice(p, 1, first+k, first+k+1), n)
		in := tensor.LogSoftmax(tail(k))
		parts = append(parts, tensor.Add(in, tensor.Repeat(cluster, 1, in.Dim(1))))
	}
	return tensor.Concat(1, parts...)
}

// head is the logits of the frequent classes and the clusters.
func (a *AdaptiveSoftmax) head(x *tensor.Tensor) *tensor.Tensor {
	if a.Table == nil {
		return a.Head.Forward(x)
	}
	return tensor.Concat(1, a.tied(x, 0, a.bounds[0]), a.Clusters.Forward(x))
}

// tail is the logits of cluster k.
func (a *AdaptiveSoftmax) tail(k int, x *tensor.Tensor) *tensor.Tensor {
	if a.Table == nil {
		return a.Tail[k][1].Forward(a.Tail[k][0].Forward(x))
	}
	return a.tied(x, a.bounds[k], a.bounds[k+1])
}

func (a *AdaptiveSoftmax) tied(x *tensor.Tensor, lo, hi int) *tensor.Tensor {
	tape := x.Tape()
	return tensor.Linear(x, tape.Rows(a.Table, lo, hi), tape.Rows(a.Bias, lo, hi))
}
