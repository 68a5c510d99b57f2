package nn

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/internal/par"
	"github.com/carousel-ml/carousel/tensor"
)

// AdaptiveSoftmax is a softmax over many classes, numbered by falling frequency, at
// about the cost of the frequent ones (Grave et al. 2017; the arithmetic of
// torch.nn.AdaptiveLogSoftmaxWithLoss). The head has an entry for each class below the
// first cutoff and one for each cluster, which holds the classes from one cutoff to the
// next. A cluster is computed only for items whose target is in it:
//
//	log p(w) = log softmax(head)[w]                                  w below the first cutoff
//	log p(w) = log softmax(head)[cutoff₀+k] + log softmax(tailₖ)[w]   w in cluster k
//
// As in PyTorch, tail k is a projection to in/div^(k+1) numbers followed by the weights
// of its classes. If tied, the weights of all classes are the rows of a table, such as
// that of an embedding, without projections and with biases.
type AdaptiveSoftmax struct {
	Head *Linear      // not tied: [cutoff₀+clusters, in]
	Tail [][2]*Linear // not tied: by cluster [in/div^(k+1), in] and [classes, in/div^(k+1)], without biases

	Table    *tensor.Param // tied: [classes, in]
	Bias     *tensor.Param // tied: [classes], zeros
	Clusters *Linear       // tied: the entries of the clusters in the head, [clusters, in]

	bounds []int // the first class of each cluster, then the number of classes
	pool   par.Pool[route]
}

// AdaptiveOptions changes an AdaptiveSoftmax; nil means PyTorch's defaults.
type AdaptiveOptions struct {
	Div      float64       // ratio of the widths of successive tails; 0 means 4
	HeadBias bool          // not tied: a bias in the head
	Tied     *tensor.Param // [classes,in]: the weights of the classes, shared with another layer
}

// NewAdaptiveSoftmax returns a softmax over classes classes for inputs of in features,
// with clusters that begin at cutoffs: one or more ascending numbers in 1 to classes-1.
// It panics with a [*tensor.UseError] for others, and for a table of another shape.
func NewAdaptiveSoftmax(in, classes int, cutoffs []int, o *AdaptiveOptions) *AdaptiveSoftmax {
	o = cmp.Or(o, &AdaptiveOptions{})
	a := &AdaptiveSoftmax{bounds: append(slices.Clone(cutoffs), classes)}
	last := 0
	for _, b := range a.bounds {
		tensor.Check(b > last, "nn: AdaptiveSoftmax", "needs ascending cutoffs in 1..%d, got %v", classes-1, cutoffs)
		last = b
	}
	clusters := len(cutoffs)
	tensor.Check(clusters > 0, "nn: AdaptiveSoftmax", "needs a cutoff; use a Linear without")
	if o.Tied != nil {
		d := o.Tied.Dims()
		tensor.Check(d[0] == classes && d[len(d)-1] == in, "nn: AdaptiveSoftmax", "%d classes of width %d cannot be tied to a table %v", classes, in, d)
		a.Table, a.Clusters = o.Tied, NewLinear(in, clusters, nil)
		a.Bias = noDecay("bias", nil, classes)
		return a
	}
	a.Head = NewLinear(in, a.bounds[0]+clusters, &LinearOptions{NoBias: !o.HeadBias})
	for k := range clusters {
		width := max(int(float64(in)/math.Pow(cmp.Or(o.Div, 4), float64(k+1))), 1)
		free := &LinearOptions{NoBias: true}
		a.Tail = append(a.Tail, [2]*Linear{NewLinear(in, width, free), NewLinear(width, a.bounds[k+1]-a.bounds[k], free)})
	}
	return a
}

// Classes returns the number of classes.
func (a *AdaptiveSoftmax) Classes() int { return a.bounds[len(a.bounds)-1] }

// Cutoffs returns the first class of each cluster.
func (a *AdaptiveSoftmax) Cutoffs() []int { return slices.Clone(a.bounds[:len(a.bounds)-1]) }

func (a *AdaptiveSoftmax) clusters() int { return len(a.bounds) - 1 }

// route assigns the items of a batch to the head and the clusters.
type route struct {
	head []int32   // by item: the class in the head, or ignored
	rows [][]int32 // by cluster: its items
	in   [][]int32 // by cluster: their classes, counted from the cluster's first
	n    int       // number of items that count
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
			panic(&tensor.ShapeError{Op: "AdaptiveSoftmax", Msg: fmt.Sprintf("target %d at position %d is outside 0..%d", t, i, a.Classes()-1)})
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

// Loss returns the mean of -log p(target) over the items of x [N,in] with targets [N],
// a tensor [1]. Items with a negative target do not count; without items it is 0. It
// panics with a [*tensor.ShapeError] for a target that is not a class.
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

// Score waits for log p(target) of each item of x [N,in] with targets [N] and writes
// it to dst [N]; 0 for a negative target. Only the clusters of targets are computed. It
// panics as Loss does.
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

// LogProb returns log p of all classes: x [N,in] to [N,classes].
func (a *AdaptiveSoftmax) LogProb(x *tensor.Tensor) *tensor.Tensor {
	first, n := a.bounds[0], x.Dim(0)
	var all *tensor.Tensor // tied: one product with the whole table, whose packed weights are cached
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

// head returns the logits of the frequent classes and the clusters.
func (a *AdaptiveSoftmax) head(x *tensor.Tensor) *tensor.Tensor {
	if a.Table == nil {
		return a.Head.Forward(x)
	}
	return tensor.Concat(1, a.tied(x, 0, a.bounds[0]), a.Clusters.Forward(x))
}

// tail returns the logits of cluster k.
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
