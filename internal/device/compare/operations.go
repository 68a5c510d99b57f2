package compare

import (
	"math"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/internal/device"
)

// operations is every method of a Backend that computes. Sizes are odd, so that edges of tiles
// are met.
func operations() []operation {
	list := []operation{
		{"fill and copy", same, false, func(r *run) {
			x := r.result(1000)
			r.Fill(x, 0.5)
			r.Copy(x.Slice(3, 203), r.normal(200), false)
			r.Copy(x.Slice(300, 500), r.normal(200), true)
		}},
		{"permute", same, false, func(r *run) {
			s := &device.PermuteSpec{Src: r.normal(2 * 3 * 5 * 7), Dst: r.result(2 * 3 * 5 * 7), Dims: [4]int{2, 3, 5, 7}, SrcStride: [4]int{105, 35, 7, 1}, DstStride: [4]int{1, 14, 42, 2}}
			r.Permute(s)
			r.Permute(&device.PermuteSpec{Src: s.Src, Dst: r.result(2 * 3 * 5), Dims: [4]int{1, 2, 3, 5}, SrcStride: [4]int{0, 105, 35, 7}, DstStride: [4]int{0, 5, 10, 1},
				Rows: r.ints(1, 0), RowDim: 1, Lens: r.ints(3, 2), TimeDim: 2})
		}},
		{"column sums", near, false, func(r *run) { r.SumRows(r.sums(37), r.normal(501*40), 501, 37, 40, true) }},
		{"elementwise functions", near, false, func(r *run) { r.functions(false) }},
		{"elementwise functions, gradients", near, false, func(r *run) { r.functions(true) }},
		{"arithmetic of two tensors", near, false, func(r *run) { r.binary(false) }},
		{"arithmetic of two tensors, gradients", near, false, func(r *run) { r.binary(true) }},
		{"dropout", same, false, func(r *run) {
			r.Dropout(&device.DropoutSpec{X: r.constant(999, 1), Y: r.result(999), N: 999, P: 0.3, Seed: 3, Step: 4, Node: 5})
		}},
	}
	for kind, name := range device.Kinds {
		k := device.Kind(kind)
		list = append(list, operation{"products, " + name, near, k == device.F32, func(r *run) { r.products(k) }})
	}
	for kind := range cell.Custom {
		list = append(list, scans("cell "+kind.Spec().Name, near, kind, device.F32, false, cell.Options{})...)
	}
	kind, _ := cell.Find(func(s *cell.Spec) bool { return s.Options.Has(cell.WithPeephole | cell.WithLayerNorm | cell.WithProj) })
	name := "cell " + kind.Spec().Name
	list = append(list, scans(name+" with all options", near, kind, device.F32, true, cell.Options{GateClip: 1.5, CellClip: 0.9, HDrop: 0.3, ZoneH: 0.2, ZoneC: 0.3})...)
	for _, k := range []device.Kind{device.BF16, device.FP16} {
		list = append(list, scans(name+" in "+device.Kinds[k], rounded, kind, k, false, cell.Options{})...)
	}
	return append(list, []operation{
		{"layer normalisation", near, false, func(r *run) { r.norm(false) }},
		{"layer normalisation, gradients", near, false, func(r *run) { r.norm(true) }},
		{"softmax", near, false, func(r *run) { r.softmax(false) }},
		{"softmax, gradients", near, false, func(r *run) { r.softmax(true) }},
		{"embedding", same, false, func(r *run) {
			r.Embed(&device.EmbedSpec{Table: r.normal(40 * 9), V: 40, D: 9, IDs: r.below(70, 0, 40), Padding: -1, Y: r.result(70 * 9)})
		}},
		{"embedding, gradients", near, false, func(r *run) {
			r.EmbedGrad(&device.EmbedSpec{Table: r.normal(40 * 9), V: 40, D: 9, IDs: r.below(70, 0, 40), Padding: 3, DY: r.normal(70 * 9), DTable: r.sums(40 * 9)})
		}},
		{"pooling of sequences", near, false, func(r *run) { r.pool(false) }},
		{"pooling of sequences, gradients", near, false, func(r *run) { r.pool(true) }},
		{"convolution", near, true, func(r *run) { r.conv(false) }},
		{"convolution, gradients", near, true, func(r *run) { r.conv(true) }},
		{"pooling of windows", near, false, func(r *run) { r.windows(false) }},
		{"pooling of windows, gradients", near, false, func(r *run) { r.windows(true) }},
		{"additive attention", near, false, func(r *run) { r.additive(false) }},
		{"additive attention, gradients", near, false, func(r *run) { r.additive(true) }},
		{"losses", near, false, (*run).losses},
		{"CTC", near, false, func(r *run) {
			r.CTC(&device.CTCSpec{B: 3, T: 12, V: 6, L: 4, Logits: r.normal(3 * 12 * 6), Lens: r.ints(12, 9, 3), Labels: r.below(12, 1, 6), LabelLens: r.ints(4, 2, 1),
				Value: r.result(1), DLogits: r.result(3 * 12 * 6)})
		}},
		{"CRF", near, false, func(r *run) {
			r.CRF(&device.CRFSpec{B: 3, T: 7, K: 5, Scores: r.normal(3 * 7 * 5), Trans: r.normal(25), Start: r.normal(5), End: r.normal(5), Lens: r.ints(7, 4, 0), Tags: r.below(21, 0, 5),
				Value: r.result(1), DScores: r.result(3 * 7 * 5), DTrans: r.result(25), DStart: r.result(5), DEnd: r.result(5)})
		}},
		{"gradient clipping", near, false, func(r *run) {
			x, square, factor := r.sums(1001), r.result(1), r.result(1)
			r.SumSquares(square, x)
			r.ClipFactor(factor, square, 0.5)
			r.ScaleBy(x, factor)
			r.AddScaled(r.sums(1001), x, factor, true)
			r.Clamp(x, -0.01, 0.01)
		}},
		{"moving average", near, false, func(r *run) { r.Lerp(r.sums(1001), r.normal(1001), 0.1) }},
		{"optimizer steps", near, false, (*run).steps},
	}...)
}

// functions is every elementwise function.
func (r *run) functions(gradients bool) {
	const n = 301
	for f := cell.Sigmoid; f < device.NumFunctions; f++ {
		x := r.normal(n)
		if f == device.Log || f == device.RSqrt {
			x = r.positive(n)
		}
		y := r.constant(n, 0)
		r.Unary(f, y, x, 0.3)
		if !gradients {
			r.out(y)
			continue
		}
		r.UnaryGrad(f, r.sums(n), r.normal(n), x, y, 0.3, true)
	}
}

func (r *run) binary(gradients bool) {
	const n = 300
	for op := device.Add; op <= device.Div; op++ {
		for _, yn := range []int{n, 12} {
			s := &device.BinarySpec{Op: op, N: n, YN: yn, X: r.normal(n), Y: r.positive(yn), Z: r.constant(n, 0)}
			r.Binary(s)
			if !gradients {
				r.out(s.Z)
				continue
			}
			s.DZ, s.DX, s.DY, s.AccX = r.normal(n), r.sums(n), r.result(yn), true
			r.BinaryGrad(s)
		}
	}
}

func (r *run) products(k device.Kind) {
	const m, n, depth = 67, 83, 129
	for _, t := range []struct{ a, b bool }{{false, false}, {false, true}, {true, false}, {true, true}} {
		r.Gemm(&device.GemmSpec{M: m, N: n, K: depth, A: r.normal(m * depth), B: r.normal(depth * n), C: r.sums(m * n), TransA: t.a, TransB: t.b, Bias: r.normal(n), Acc: t.a, Kind: k})
	}
	if k != device.INT8 {
		r.Gemm(&device.GemmSpec{M: 5, N: 7, K: 9, A: r.normal(3 * 45), B: r.normal(3 * 63), C: r.result(3 * 35), Kind: k, Batch: 3, StrideA: 45, StrideB: 63, StrideC: 35})
	}
}

// scans is a cell over ragged sequences, forward and backward.
func scans(name string, bound float64, kind cell.Kind, product device.Kind, all bool, o cell.Options) []operation {
	do := func(gradients bool) func(*run) {
		return func(r *run) { r.scan(kind, product, all, o, gradients) }
	}
	exact := product == device.F32
	return []operation{{name, bound, exact, do(false)}, {name + ", gradients", bound, exact, do(true)}}
}

func (r *run) scan(kind cell.Kind, product device.Kind, all bool, o cell.Options, gradients bool) {
	const T, B, I, H = 9, 5, 11, 21
	s := &device.ScanSpec{Cell: kind, T: T, B: B, I: I, H: H, Keep: gradients, CellOptions: device.CellOptions{Options: o, Seed: 5, Step: 6, Node: 7}}
	for i := range s.Kinds {
		s.Kinds[i] = product
	}
	present := []cell.Param{cell.W, cell.BW, cell.BR, cell.H0}
	if !kind.Spec().Free {
		present = append(present, cell.R)
	}
	if s.CellWidth() > 0 {
		present = append(present, cell.C0)
	}
	if all {
		s.Proj = 13
		present = append(present, cell.P, cell.PeepI, cell.PeepF, cell.PeepO, cell.NormX, cell.NormR, cell.NormC, cell.BiasC)
	}
	out := s.Out()
	for _, p := range present {
		n, dims := 1, s.Dims(p)
		for i := range cell.Params[p].Rank() {
			n *= dims[i]
		}
		if p == cell.C0 { // some states must be positive
			s.Params[p] = r.positive(n)
		} else {
			s.Params[p] = r.scaled(n, 1/math.Sqrt(H))
		}
	}
	s.X, s.YLd = r.normal(T*B*I), out
	s.Active = r.ints(5, 5, 5, 4, 4, 4, 2, 1, 1)
	s.Y, s.HN, s.CN = r.constant(T*B*out, 0), r.constant(B*out, 0), r.constant(B*s.CellWidth(), 0)
	s.Work = r.constant(r.ScanWork(s), 0)
	r.Scan(s)
	if !gradients {
		r.out(s.Y)
		r.out(s.HN)
		if s.CellWidth() > 0 {
			r.out(s.CN)
		}
		return
	}
	s.DY, s.DHN, s.DX = r.normal(T*B*out), r.normal(B*out), r.result(T*B*I)
	if s.CellWidth() > 0 {
		s.DCN = r.normal(B * s.CellWidth())
	}
	for _, p := range present {
		s.Grads[p] = r.sums(s.Params[p].N)
	}
	r.ScanGrad(s)
}

func (r *run) norm(gradients bool) {
	const rows, cols = 7, 133
	s := &device.NormSpec{Rows: rows, Cols: cols, X: r.normal(rows * cols), Y: r.constant(rows*cols, 0), Gamma: r.normal(cols), Beta: r.normal(cols), Eps: 1e-5, Mean: r.constant(rows, 0), RStd: r.constant(rows, 0)}
	r.Norm(s)
	if !gradients {
		r.out(s.Y)
		return
	}
	s.DY, s.DX, s.DGamma, s.DBeta = r.normal(rows*cols), r.result(rows*cols), r.sums(cols), r.sums(cols)
	r.NormGrad(s)
}

func (r *run) softmax(gradients bool) {
	const rows, cols = 6, 133
	for _, log := range []bool{false, true} {
		s := &device.SoftmaxSpec{Rows: rows, Cols: cols, X: r.normal(rows * cols), Y: r.constant(rows*cols, 0), Log: log}
		if !log {
			s.Lens, s.RowsPerLen = r.ints(133, 50, 0), 2
		}
		r.Softmax(s)
		if !gradients {
			r.out(s.Y)
			continue
		}
		s.DY, s.DX = r.normal(rows*cols), r.result(rows*cols)
		r.SoftmaxGrad(s)
	}
}

func (r *run) pool(gradients bool) {
	const b, t, f = 3, 8, 19
	for kind := device.PoolLast; kind <= device.PoolMax; kind++ {
		s := &device.PoolSpec{Kind: kind, B: b, T: t, F: f, X: r.normal(b * t * f), Y: r.constant(b*f, 0), Lens: r.ints(8, 3, 0)}
		if kind == device.PoolMax {
			s.Arg = r.intResult(b * f)
		}
		r.Pool(s)
		if !gradients {
			r.out(s.Y)
			continue
		}
		s.DY, s.DX = r.normal(b*f), r.result(b*t*f)
		r.PoolGrad(s)
	}
}

var (
	stepped = device.Window{In: 9, Out: 5, Kernel: 3, Stride: 2, Dilation: 1, Before: 1}
	whole   = device.Window{In: 6, Out: 6, Kernel: 3, Stride: 1, Dilation: 1, Before: 1}
)

func (r *run) conv(gradients bool) {
	const b, in, out, groups = 2, 6, 8, 2
	pixels, places := stepped.In*whole.In, stepped.Out*whole.Out
	s := &device.ConvSpec{B: b, I: in, O: out, Groups: groups, H: stepped, W: whole, Lens: r.ints(9, 4), X: r.normal(b * pixels * in), Y: r.constant(b*places*out, 0),
		Weight: r.scaled(out*in/groups*9, 0.2), Bias: r.normal(out)}
	if !gradients {
		s.Act = cell.Tanh
		r.Conv(s)
		r.out(s.Y)
		return
	}
	s.DY, s.DX, s.DWeight, s.DBias = r.normal(s.Y.N), r.result(s.X.N), r.sums(s.Weight.N), r.sums(out)
	r.ConvGrad(s)
}

func (r *run) windows(gradients bool) {
	const b, c = 2, 5
	pixels, places := stepped.In*whole.In, stepped.Out*whole.Out
	for _, mean := range []bool{false, true} {
		s := &device.WindowPoolSpec{B: b, C: c, H: stepped, W: whole, Lens: r.ints(9, 4), Mean: mean, X: r.normal(b * pixels * c), Y: r.constant(b*places*c, 0)}
		if !mean {
			s.Arg = r.intResult(s.Y.N)
		}
		r.WindowPool(s)
		if !gradients {
			r.out(s.Y)
			continue
		}
		s.DY, s.DX = r.normal(s.Y.N), r.result(s.X.N)
		r.WindowPoolGrad(s)
	}
}

func (r *run) additive(gradients bool) {
	const b, q, t, u = 2, 3, 7, 17
	s := &device.AdditiveSpec{B: b, Q: q, T: t, U: u, Query: r.normal(b * q * u), Key: r.normal(b * t * u), V: r.normal(u), Cover: r.normal(b * q * t), W: r.normal(u), Lens: r.ints(7, 4), Score: r.constant(b*q*t, 0)}
	r.Additive(s)
	if !gradients {
		r.out(s.Score)
		return
	}
	s.DScore, s.DQuery, s.DKey, s.DV, s.DCover, s.DW = r.normal(b*q*t), r.sums(b*q*u), r.sums(b*t*u), r.sums(u), r.sums(b*q*t), r.sums(u)
	r.AdditiveGrad(s)
}

// losses is every loss with its gradient.
func (r *run) losses() {
	const n = 53
	width := map[device.LossKind]int{device.Quantile: 3, device.Gaussian: 2, device.StudentT: 3, device.NegBinomial: 2, device.CrossEntropy: 11}
	for kind := device.MSE; kind <= device.BCE; kind++ {
		v := max(width[kind], 1)
		s := &device.LossSpec{Kind: kind, N: n, V: v, Pred: r.normal(n * v), Weight: r.positive(n), Ignore: -100, Param: 0.7, Value: r.result(1), DPred: r.result(n * v)}
		switch kind {
		case device.CrossEntropy:
			s.Classes, s.ClassWeight, s.Smoothing = r.below(n, 0, v), r.positive(v), 0.1
		case device.NegBinomial:
			s.Target = r.fill(n, func() float32 { return float32(r.IntN(9)) })
		case device.BCE:
			s.Target = r.fill(n, r.Float32)
		default:
			s.Target = r.normal(n)
		}
		if kind == device.Quantile {
			s.Quantiles = r.put([]float32{0.1, 0.5, 0.9})
		}
		r.Loss(s)
	}
}

// steps is each optimizer's.
func (r *run) steps() {
	const n = 1001
	for _, s := range []device.StepSpec{
		{Kind: device.SGD, Momentum: 0.9, Nesterov: true, Decay: 0.01},
		{Kind: device.Adam, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 0.01, Decoupled: true},
		{Kind: device.RMSprop, Beta2: 0.99, Eps: 1e-8, Momentum: 0.5},
	} {
		s.LR, s.T = 0.01, 3
		s.W, s.G, s.M, s.V = r.sums(n), r.sums(n), r.sums(n), r.out(r.positive(n))
		s.Scale = r.constant(1, 0.5)
		r.Step(&s)
	}
}
